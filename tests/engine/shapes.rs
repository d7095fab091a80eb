//! What index, pooling and resizing operations say about shapes that do not fit: the operation, the shapes, the remedy.

use shadegrad::{Outside, Pool2d, Result, Tensor};

use super::gpu;

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(&gpu(), shape).unwrap()
}

fn indices(shape: &[usize]) -> Tensor {
    let zeros = vec![0; shape.iter().product()];
    Tensor::from_u32(&gpu(), &zeros, shape).unwrap()
}

/// Fails unless the result is an error whose text begins with the operation and holds every word.
#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T>, op: &str, words: &[&str]) {
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with(&format!("{op}: ")), "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[test]
fn shapes_and_slices() {
    let x = ones(&[2, 3, 4]);
    says(x.reshape(&[5, 5]), "reshape", &["[2, 3, 4]", "24", "[5, 5]", "25"]);
    says(x.reshape(&[1; 9]), "reshape", &["9 dimensions", "at most 8"]);
    says(x.flatten(2, 1), "flatten", &["2..=1", "swap"]);
    says(x.flatten(0, 3), "flatten", &["axis 3", "3 dimensions"]);
    says(x.squeeze(1), "squeeze", &["length 3", "slice"]);
    says(x.unsqueeze(4), "unsqueeze", &["position 4", "3"]);
    says(x.permute(&[0, 1]), "permute", &["[0, 1]", "[2, 3, 4]", "once"]);
    says(x.permute(&[0, 1, 1]), "permute", &["[0, 1, 1]", "once"]);
    says(x.permute(&[0, 1, 5]), "permute", &["[0, 1, 5]", "once"]);
    says(x.transpose(0, 3), "transpose", &["axis 3"]);
    says(x.slice(1, 2, 4, 1), "slice", &["2..4", "dimension 1", "end <= 3"]);
    says(x.slice(1, 2, 1, 1), "slice", &["2..1"]);
    says(x.slice(1, 0, 2, 0), "slice", &["step"]);
    says(x.narrow(2, usize::MAX, 1), "slice", &["dimension 2"]);
    says(x.select_at(0, 2), "slice", &["2..3", "end <= 2"]);
    says(x.pad(&[(1, 1)], 0.0), "pad", &["1 pairs", "[2, 3, 4]"]);
    says(x.broadcast_to(&[2, 3, 5]), "broadcast_to", &["[2, 3, 4]", "[2, 3, 5]", "equal or one"]);
    says(x.broadcast_to(&[3, 4]), "broadcast_to", &["[3, 4]"]);
    says(x.broadcast_to(&[1 << 20, 1 << 20, 2, 3, 4]), "broadcast_to", &["2^30"]);
    says(x.flip(&[3]), "flip", &["axis 3"]);
    says(x.roll(3, 1), "roll", &["axis 3"]);
    says(x.split(1, &[1, 1]), "split", &["add up to 2", "has 3"]);
    says(Tensor::concat(&[], 0), "concat", &["at least one"]);
    says(Tensor::concat(&[&x, &ones(&[2, 2, 4])], 0), "concat", &["part 1", "[2, 2, 4]", "[2, 3, 4]"]);
    says(Tensor::concat(&[&x, &indices(&[2, 3, 4])], 0), "concat", &["F32", "U32"]);
    says(Tensor::stack(&[&x, &ones(&[2])], 0), "stack", &["part 1", "[2]"]);
    says(x.diagonal(), "diagonal", &["[2, 3, 4]", "not square"]);
    says(ones(&[3]).tril(0), "tril", &["[3]", "two dimensions"]);
    let bytes = Tensor::from_bytes(&gpu(), &[1, 2, 3, 4], &[2, 2]).unwrap();
    says(bytes.transpose(0, 1), "permute", &["U8", "index_select"]);
}

#[test]
fn indexing() {
    let x = ones(&[4, 3]);
    says(x.gather(2, &indices(&[4, 3])), "gather", &["axis 2"]);
    says(x.gather(1, &ones(&[4, 3])), "gather", &["U32", "F32"]);
    says(x.gather(1, &indices(&[4])), "gather", &["[4]", "[4, 3]", "same rank"]);
    says(x.gather(1, &indices(&[5, 3])), "gather", &["[5, 3]", "longer"]);
    says(ones(&[4, 0]).gather(1, &indices(&[4, 1])), "gather", &["no elements"]);
    says(x.scatter_add(1, &indices(&[4, 2]), &ones(&[4, 3])), "scatter_add", &["[4, 3]", "[4, 2]", "equal"]);
    says(x.index_select(0, &indices(&[2, 2])), "index_select", &["[2, 2]", "flatten"]);
    says(x.index_add(0, &indices(&[2]), &ones(&[3, 3])), "index_add", &["[3, 3]", "[2, 3]"]);
    says(ones(&[4]).embedding(&indices(&[2])), "embedding", &["[4]", "[rows, d]"]);
    says(x.embedding(&ones(&[2])), "embedding", &["U32"]);
    says(x.one_hot(3), "one_hot", &["U32"]);
    let bytes = Tensor::from_bytes(&gpu(), &[1, 2, 3, 4], &[2, 2]).unwrap();
    says(bytes.index_select(1, &indices(&[1])), "index_select", &["U8"]);
}

#[test]
fn pooling_and_resizing() {
    let x = ones(&[1, 4, 4, 2]);
    says(ones(&[4, 4]).max_pool2d(Pool2d::new(2, 2, 0)), "max_pool2d", &["[4, 4]", "height, width"]);
    says(x.max_pool2d(Pool2d::new(7, 1, 1)), "max_pool2d", &["[7, 7]", "[1, 4, 4, 2]", "smaller"]);
    says(x.avg_pool2d(Pool2d::new(2, 2, 2)), "avg_pool2d", &["padding", "half"]);
    says(x.avg_pool2d(Pool2d::new(2, 0, 0)), "avg_pool2d", &["stride"]);
    says(ones(&[1, 0, 4, 2]).adaptive_avg_pool2d(1, 1), "adaptive_avg_pool2d", &["no pixels"]);
    says(ones(&[1, 0, 4, 2]).global_avg_pool(), "global_avg_pool", &["no pixels"]);
    says(ones(&[1, 0, 4, 2]).resize_nearest(2, 2), "resize_nearest", &["no pixels", "2 x 2"]);
    says(x.resize_bilinear(1 << 28, 1, false), "resize_bilinear", &["too large"]);
    says(
        x.grid_sample(&ones(&[2, 3, 3, 2]), Outside::Zeros),
        "grid_sample",
        &["[2, 3, 3, 2]", "[1, rows, columns, 2]"],
    );
    says(x.grid_sample(&indices(&[1, 3, 3, 2]), Outside::Zeros), "grid_sample", &["F32", "U32"]);
}
