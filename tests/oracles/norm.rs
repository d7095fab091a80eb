use crate::oracle::norm::*;
use crate::oracle::{array, index, reduce};
use crate::{close, noise};

#[test]
fn batch_statistics_by_hand() {
    let x = array(&[2, 1, 1, 2], &[1.0, 10.0, 3.0, 10.0]);
    let (gamma, beta) = (array(&[2], &[2.0, 3.0]), array(&[2], &[0.5, 7.0]));
    let (y, mean, var) = batch_norm(&x, Some(&gamma), Some(&beta), 3.0);
    close(&mean, &array(&[2], &[2.0, 10.0]), 0.0);
    close(&var, &array(&[2], &[1.0, 0.0]), 0.0);
    close(&y, &array(&[2, 1, 1, 2], &[-0.5, 7.0, 1.5, 7.0]), 1e-15);
    close(&batch_norm_eval(&x, &mean, &var, Some(&gamma), Some(&beta), 3.0), &y, 1e-15);
    close(&batch_norm_eval(&x, &mean, &var, None, None, 3.0), &batch_norm(&x, None, None, 3.0).0, 1e-15);
}

#[test]
fn groups_are_standardised() {
    let x = noise(&[2, 3, 4, 6]);
    let split = |x: &crate::A| index::reshape(x, &[2, 12, 3, 2]);
    let y = split(&group_norm(&x, 3, None, None, 0.0));
    close(&reduce::mean(&y, &[1, 3], false), &array(&[2, 3], &[0.0; 6]), 1e-14);
    close(&reduce::var(&y, &[1, 3], 0, false), &array(&[2, 3], &[1.0; 6]), 1e-13);
    let rows = layer_norm(&x, None, None, 0.0);
    close(&reduce::mean(&rows, &[3], false), &array(&[2, 3, 4], &[0.0; 24]), 1e-14);
    close(&reduce::var(&rows, &[3], 0, false), &array(&[2, 3, 4], &[1.0; 24]), 1e-13);
}

#[test]
fn one_in_terms_of_another() {
    let (gamma, beta) = (noise(&[4]), noise(&[4]));
    let one_image = noise(&[1, 3, 5, 4]);
    let (by_channel, _, _) = batch_norm(&one_image, Some(&gamma), Some(&beta), 1e-3);
    close(&instance_norm(&one_image, Some(&gamma), Some(&beta), 1e-3), &by_channel, 1e-13);
    let one_pixel = noise(&[5, 1, 1, 4]);
    let by_row = layer_norm(&one_pixel, Some(&gamma), Some(&beta), 1e-3);
    close(&group_norm(&one_pixel, 1, Some(&gamma), Some(&beta), 1e-3), &by_row, 1e-13);
}
