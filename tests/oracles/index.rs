use crate::oracle::array;
use crate::oracle::index::*;
use crate::{close, dot, indices, noise};

#[test]
fn moving_axes() {
    let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    close(&reshape(&x, &[3, 2]), &array(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.0);
    close(&transpose(&x, 0, 1), &array(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]), 0.0);
    let y = noise(&[2, 3, 4]);
    let turned = permute(&y, &[2, 0, 1]);
    assert_eq!(turned.shape(), [4, 2, 3]);
    assert_eq!(turned[[3, 1, 2]], y[[1, 2, 3]]);
    close(&permute(&turned, &[1, 2, 0]), &y, 0.0);
}

#[test]
fn cutting_and_joining() {
    let x = array(&[5], &[0.0, 1.0, 2.0, 3.0, 4.0]);
    close(&slice(&x, 0, 1, 5, 2), &array(&[2], &[1.0, 3.0]), 0.0);
    close(&slice(&x, 0, 0, 5, 2), &array(&[3], &[0.0, 2.0, 4.0]), 0.0);
    assert_eq!(slice(&x, 0, 2, 2, 1).shape(), [0]);
    let m = array(&[1, 2], &[1.0, 2.0]);
    close(&pad(&m, &[(1, 0), (0, 1)], 9.0), &array(&[2, 3], &[9.0, 9.0, 9.0, 1.0, 2.0, 9.0]), 0.0);
    close(&broadcast_to(&m, &[2, 2, 2]), &array(&[2, 2, 2], &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]), 0.0);
    let n = array(&[2, 2], &[3.0, 4.0, 5.0, 6.0]);
    close(&concat(&[&m, &n], 0), &array(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.0);
    close(&concat(&[&m, &array(&[1, 1], &[7.0])], 1), &array(&[1, 3], &[1.0, 2.0, 7.0]), 0.0);
    close(&stack(&[&x, &x], 1), &transpose(&broadcast_to(&x, &[2, 5]), 0, 1), 0.0);
}

#[test]
fn turning_round() {
    let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    close(&flip(&x, &[1]), &array(&[2, 3], &[3.0, 2.0, 1.0, 6.0, 5.0, 4.0]), 0.0);
    close(&flip(&x, &[0, 1]), &array(&[2, 3], &[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), 0.0);
    close(&roll(&x, 1, 1), &array(&[2, 3], &[3.0, 1.0, 2.0, 6.0, 4.0, 5.0]), 0.0);
    close(&roll(&x, 1, -4), &roll(&x, 1, 2), 0.0);
}

#[test]
fn picking_by_index() {
    let x = array(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let index = indices(&[2, 2], &[2, 0, 1, 1]);
    close(&gather(&x, 1, &index), &array(&[2, 2], &[3.0, 1.0, 5.0, 5.0]), 0.0);
    let src = array(&[2, 2], &[10.0, 20.0, 30.0, 40.0]);
    close(&scatter_add(&x, 1, &index, &src), &array(&[2, 3], &[21.0, 2.0, 13.0, 4.0, 75.0, 6.0]), 0.0);
    let zeros = array(&[2, 3], &[0.0; 6]);
    assert_eq!(dot(&gather(&x, 1, &index), &src), dot(&x, &scatter_add(&zeros, 1, &index, &src)));
    close(&index_select(&x, 1, &[2, 2]), &array(&[2, 2], &[3.0, 3.0, 6.0, 6.0]), 0.0);
    let ids = indices(&[2], &[1, 0]);
    close(&one_hot(&ids, 3), &array(&[2, 3], &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]), 0.0);
    close(&embedding(&x, &ids), &array(&[2, 3], &[4.0, 5.0, 6.0, 1.0, 2.0, 3.0]), 0.0);
}
