//! Running sums, sorting and the k best.

use super::{A, map_lanes};
use ndarray::{ArrayD, Axis, Slice};

/// The inclusive running sum along `axis`.
pub fn cumsum(x: &A, axis: usize) -> A {
    map_lanes(x, axis, |lane| {
        lane.iter()
            .scan(0.0, |sum, v| {
                *sum += v;
                Some(*sum)
            })
            .collect()
    })
}

/// Values along `axis` in order, and the index each came from. Stable in both directions: equal elements
/// keep their original order, descending too.
pub fn sort(x: &A, axis: usize, descending: bool) -> (A, ArrayD<usize>) {
    let mut index = ArrayD::zeros(x.raw_dim());
    for (lane, mut to) in x.lanes(Axis(axis)).into_iter().zip(index.lanes_mut(Axis(axis))) {
        let mut order: Vec<usize> = (0..lane.len()).collect();
        order.sort_by(|&i, &j| {
            let ascending = lane[i].partial_cmp(&lane[j]).expect("no NaN");
            if descending { ascending.reverse() } else { ascending }
        });
        to.iter_mut().zip(order).for_each(|(t, i)| *t = i);
    }
    (super::index::gather(x, axis, &index), index)
}

/// The `k` largest (or smallest) along `axis`, best first, with their indices; ties: lowest index first.
pub fn topk(x: &A, k: usize, axis: usize, largest: bool) -> (A, ArrayD<usize>) {
    let (values, index) = sort(x, axis, largest);
    let first_k = Slice::from(..k as isize);
    (
        values.slice_axis(Axis(axis), first_k).as_standard_layout().into_owned(),
        index.slice_axis(Axis(axis), first_k).as_standard_layout().into_owned(),
    )
}
