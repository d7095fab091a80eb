//! Augmentation against the same steps in Rust, from the same random words.

use shadegrad::augment::{Augment, Fill, Mix};
use shadegrad::autograd::grad;
use shadegrad::rng::{Stream, philox4x32_10};
use shadegrad::{Gpu, Tensor};

const MEAN: [f32; 4] = [0.5, 0.25, 0.4, 0.1];
const STD: [f32; 4] = [0.2, 0.25, 0.3, 0.5];
const S: Stream = Stream { seed: 0x1234_5678_9abc_def0, stream: 7 };

fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (philox4x32_10([i, 1, 2, 3], [4, 5])[0] >> 24) as u8).collect()
}

/// The batch by plain loops.
fn expected(a: &Augment, data: &[u8], [n, h, w, c]: [usize; 4], chosen: &[u32], s: Stream) -> Vec<f32> {
    let [oh, ow] = a.crop.unwrap_or([h, w]);
    let share = |word: u32, places: usize| ((u64::from(word) * places as u64) >> 32) as usize;
    let mirrored = |i: isize, n: usize| {
        let low = i.unsigned_abs();
        if low < n { low } else { 2 * (n - 1) - low }
    };
    let mut out = Vec::new();
    for &id in chosen {
        let id = (id as usize).min(n - 1);
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let ([k0, k1], [s0, s1]) = (halves(s.seed), halves(s.stream));
        let word = philox4x32_10([id as u32, 0, s0, s1], [k0, k1]);
        let dy = share(word[0], h + 2 * a.pad - oh + 1);
        let dx = share(word[1], w + 2 * a.pad - ow + 1);
        let flip = f64::from(word[2] >> 8) / f64::from(1 << 24) < f64::from(a.flip);
        let (cy, cx) = (share(word[3] & 0xffff_0000, oh) as isize, share(word[3] << 16, ow) as isize);
        for oy in 0..oh {
            for ox in 0..ow {
                let column = if flip { ow - 1 - ox } else { ox };
                let (sy, sx) = ((oy + dy) as isize - a.pad as isize, (column + dx) as isize - a.pad as isize);
                let inside = sy >= 0 && sx >= 0 && sy < h as isize && sx < w as isize;
                let (top, left) = (cy - a.cutout as isize / 2, cx - a.cutout as isize / 2);
                let side = a.cutout as isize;
                let cut = (top..top + side).contains(&(oy as isize)) && (left..left + side).contains(&(ox as isize));
                for k in 0..c {
                    let byte = if inside || a.fill == Fill::Reflect {
                        data[((id * h + mirrored(sy, h)) * w + mirrored(sx, w)) * c + k]
                    } else {
                        0
                    };
                    let (mean, std) = (a.mean[k % a.mean.len()], a.std[k % a.std.len()]);
                    let mean_colour = !inside && a.fill == Fill::Mean;
                    out.push(if cut || mean_colour { 0.0 } else { (f32::from(byte) / 255.0 - mean) / std });
                }
            }
        }
    }
    out
}

fn same(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        // A wrong pixel is off by 1 / (255 std) at least unless the bytes are equal.
        assert!((g - w).abs() < 1e-5, "{what}: element {i} is {g}, not {w}");
    }
}

#[test]
fn every_option_takes_the_pixels_that_the_words_say() {
    let gpu = super::gpu();
    let sizes =
        [[5, 8, 8, 3], [3, 32, 32, 3], [4, 7, 9, 1], [6, 12, 12, 2], [3, 5, 8, 4], [2, 1, 1, 3], [4, 28, 28, 1]];
    for size @ [n, h, w, c] in sizes {
        let data = bytes(n * h * w * c);
        let images = Tensor::from_bytes(&gpu, &data, &size).unwrap();
        // Not in order, one twice.
        let chosen: Vec<u32> = (0..n as u32 + 1).map(|i| (i * 5 + 1) % n as u32).collect();
        let indices = Tensor::from_u32(&gpu, &chosen, &[chosen.len()]).unwrap();
        let plain = Augment::none(&MEAN[..c], &STD[..c]);
        let mut settings = vec![
            plain.clone(),
            Augment { flip: 1.0, ..plain.clone() },
            Augment::crop_flip(&MEAN[..1], &STD[..1]),
            Augment { cutout: 3, flip: 0.3, ..plain.clone() },
            Augment { cutout: 2 * h + 2, pad: 2, crop: Some([h + 1, w + 3]), ..plain.clone() },
        ];
        if h > 2 {
            settings.push(Augment { pad: 2, fill: Fill::Reflect, flip: 0.5, ..plain.clone() });
            settings.push(Augment { pad: 3, fill: Fill::Mean, flip: 0.5, cutout: 3, ..plain.clone() });
            settings.push(Augment { pad: h.min(w) - 1, fill: Fill::Reflect, crop: Some([h - 2, w - 1]), ..plain });
        }
        for a in settings {
            let got = a.apply(&images, &indices, S).unwrap();
            let [oh, ow] = a.crop.unwrap_or([h, w]);
            assert_eq!(got.shape(), [chosen.len(), oh, ow, c]);
            same(&got.to_vec().unwrap(), &expected(&a, &data, size, &chosen, S), &format!("{size:?} {a:?}"));
        }
    }
}

#[test]
fn an_image_fares_alike_in_any_batch_and_differently_in_the_next_epoch() {
    let gpu = super::gpu();
    let images = Tensor::from_bytes(&gpu, &bytes(20 * 8 * 8 * 3), &[20, 8, 8, 3]).unwrap();
    let a = Augment::crop_flip(&MEAN[..3], &STD[..3]);
    let batch = |ids: &[u32], epoch| {
        let ids = Tensor::from_u32(&gpu, ids, &[ids.len()]).unwrap();
        a.apply(&images, &ids, Stream::new(1, epoch)).unwrap().to_vec().unwrap()
    };
    let (all, some) = (batch(&(0..20).collect::<Vec<_>>(), 0), batch(&[13, 4], 0));
    assert_eq!(some[..192], all[13 * 192..14 * 192]);
    assert_eq!(some[192..], all[4 * 192..5 * 192]);
    assert_ne!(all, batch(&(0..20).collect::<Vec<_>>(), 1));
    assert!(batch(&[], 0).is_empty());
}

#[test]
fn settings_that_do_not_fit_are_errors_that_say_so() {
    let gpu = super::gpu();
    let images = Tensor::from_bytes(&gpu, &bytes(2 * 4 * 4 * 3), &[2, 4, 4, 3]).unwrap();
    let ids = Tensor::from_u32(&gpu, &[0, 1], &[2]).unwrap();
    let plain = Augment::none(&MEAN[..3], &STD[..3]);
    for (a, word) in [
        (Augment { crop: Some([5, 4]), ..plain.clone() }, "does not exist"),
        (Augment { pad: 4, fill: Fill::Reflect, ..plain.clone() }, "reflection"),
        (Augment { flip: 1.5, ..plain.clone() }, "probability"),
        (Augment { mean: vec![0.5; 2], ..plain.clone() }, "3 channels"),
        (Augment { std: vec![0.0], ..plain.clone() }, "std"),
    ] {
        let text = a.apply(&images, &ids, S).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    let floats = Tensor::zeros(&gpu, &[2, 4, 4, 3]).unwrap();
    assert!(plain.apply(&floats, &ids, S).unwrap_err().to_string().contains("U8"));
}

fn batch(gpu: &Gpu, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let x = Tensor::uniform(gpu, shape, Stream::new(3, 3), -1.0, 1.0).unwrap();
    let values = x.to_vec().unwrap();
    (x, values)
}

#[test]
fn mixing_blends_or_pastes_and_its_gradient_goes_to_both() {
    let gpu = super::gpu();
    for shape in [[6, 5, 4, 3], [5, 3, 3, 1], [4, 8, 8, 4]] {
        let [b, h, w, c] = shape;
        for mix in [
            Mix::mixup(b, 0.4, Stream::new(8, 1)).unwrap(),
            Mix::cutmix(b, [h, w], 1.0, Stream::new(8, 2)).unwrap(),
            Mix { lambda: 0.5, partner: (0..b as u32).map(|i| (i + 2) % b as u32).collect(), rect: Some([1, 0, 3, 2]) },
        ] {
            let (x, values) = batch(&gpu, &shape);
            let shares = |i: usize| {
                let (py, px) = ((i / (c * w) % h) as u32, (i / c % w) as u32);
                match mix.rect {
                    None => (mix.lambda, 1.0 - mix.lambda),
                    Some([y0, x0, y1, x1]) if (y0..y1).contains(&py) && (x0..x1).contains(&px) => (0.0, 1.0),
                    Some(_) => (1.0, 0.0),
                }
            };
            let size = h * w * c;
            let partner = |i: usize| mix.partner[i / size] as usize * size + i % size;
            let want: Vec<f32> =
                (0..values.len()).map(|i| shares(i).0 * values[i] + shares(i).1 * values[partner(i)]).collect();
            let x = x.leaf();
            let y = mix.apply(&x).unwrap();
            same(&y.to_vec().unwrap(), &want, &format!("{shape:?} {mix:?}"));

            let (g, weights) = batch(&gpu, &shape);
            let loss = y.mul(&g).unwrap().sum_to(&[]).unwrap();
            let dx = grad(&loss, &[&x]).unwrap()[0].to_vec().unwrap();
            let mut want = vec![0.0; values.len()];
            for i in 0..want.len() {
                want[i] += shares(i).0 * weights[i];
                want[partner(i)] += shares(i).1 * weights[i];
            }
            same(&dx, &want, "gradient");
        }
    }
}

#[test]
fn mixed_targets_share_one() {
    let gpu = super::gpu();
    let mix = Mix { lambda: 0.75, partner: vec![1, 2, 0, 3], rect: None };
    let labels = Tensor::from_u32(&gpu, &[0, 2, 0, 1], &[4]).unwrap();
    let targets = mix.targets(&labels, 3).unwrap().to_vec().unwrap();
    same(&targets, &[0.75, 0.0, 0.25, 0.25, 0.0, 0.75, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "targets");
    let twice = Mix { partner: vec![1, 1, 0, 3], ..mix.clone() };
    let (x, _) = batch(&gpu, &[4, 2]);
    assert!(twice.apply(&x).unwrap_err().to_string().contains("permutation"));
    assert!(mix.apply(&batch(&gpu, &[3, 2]).0).is_err());
    assert!(Mix::mixup(4, 0.0, S).is_err());
}

#[test]
fn cutmix_shares_are_areas_and_beta_has_its_moments() {
    let mut sums = [0.0f64; 2];
    for i in 0..4000 {
        let mix = Mix::cutmix(3, [9, 7], 1.0, Stream::new(5, i)).unwrap();
        let [y0, x0, y1, x1] = mix.rect.unwrap();
        assert!(y0 <= y1 && y1 <= 9 && x0 <= x1 && x1 <= 7);
        assert!((mix.lambda - (1.0 - ((y1 - y0) * (x1 - x0)) as f32 / 63.0)).abs() < 1e-6);
        let lambda = f64::from(Mix::mixup(2, 0.2, Stream::new(6, i)).unwrap().lambda);
        sums[0] += lambda;
        sums[1] += (lambda - 0.5).powi(2);
    }
    // Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)); four standard errors.
    assert!((sums[0] / 4000.0 - 0.5).abs() < 0.03, "{sums:?}");
    assert!((sums[1] / 4000.0 - 1.0 / 5.6).abs() < 0.01, "{sums:?}");
}
