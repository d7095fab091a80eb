//! Ten checks with their numbers, both implementations against Pillow's results on real pictures, and
//! what the library refuses.

use std::collections::HashMap;

use shadegrad::augment::{Augment, Fill as Padding};
use shadegrad::data::{Dataset, digits};
use shadegrad::pixels::{PixelOp, PixelOps};
use shadegrad::rng::{Philox, Stream};
use shadegrad::train::Images;
use shadegrad::{Error, Result, Tensor};

use super::{Fill, ImageU8, Op, Param, Pipeline, Preset, RandAugment, grid_search, op_apply, quantise};
use crate::papers::testing::gpu;
use crate::papers::{self, Context, Silent};

const WHITE: Fill = Fill::Colour([128, 64, 200]);

/// Sixteen real pictures of 32 x 32 x 3 bytes.
static PICTURES: &[u8; 16 * 3072] = include_bytes!("../../../../tests/fixtures/ten_losses/images.bin");
/// What Pillow makes of them (`scripts/reference/randaugment.py`).
const PILLOW: &str = include_str!("pillow.txt");

fn pictures() -> Vec<ImageU8> {
    PICTURES.chunks(3072).map(|p| ImageU8::new(32, 32, 3, p.to_vec()).expect("32x32x3")).collect()
}

/// A picture of 4 x 4 pixels whose results were worked out by hand.
fn t() -> ImageU8 {
    let r = [0, 40, 80, 120, 16, 56, 96, 136, 32, 72, 112, 152, 48, 88, 128, 168];
    let g = [200, 170, 140, 110, 210, 180, 150, 120, 220, 190, 160, 130, 230, 200, 170, 140];
    let b = [5, 65, 125, 185, 65, 125, 185, 5, 125, 185, 5, 65, 185, 5, 65, 125];
    let data = (0..16).flat_map(|i| [r[i], g[i], b[i]]).collect();
    ImageU8::new(4, 4, 3, data).expect("4x4x3")
}

/// By both implementations, which must agree.
fn both(op: Op, param: Param, image: &ImageU8, fill: Fill) -> ImageU8 {
    let cpu = op_apply(op, param, image, fill).expect("a finite number");
    assert_eq!(on_device(&[(op, param)], std::slice::from_ref(image), fill).expect("runs")[0], cpu, "{op:?} {param}");
    cpu
}

/// A list of operations for all of several opaque images of one size, on the device.
fn on_device(ops: &[(Op, Param)], images: &[ImageU8], fill: Fill) -> Result<Vec<ImageU8>> {
    let [h, w, c] = images[0].size();
    let bytes: Vec<u8> = images.iter().flat_map(|i| i.data.iter().copied()).collect();
    let on = PixelOps::new(&gpu())?;
    let all = Tensor::from_bytes(&gpu(), &bytes, &[images.len(), h, w, c])?;
    let ids = Tensor::from_u32(&gpu(), &(0..images.len() as u32).collect::<Vec<_>>(), &[images.len()])?;
    let mut pixels = on.gather(&all, &ids)?;
    for &(op, param) in ops {
        pixels = on.apply(&pixels, &vec![op.on_device(param, [h, w])?; images.len()], fill.rgba())?;
    }
    let bytes = pixels.bytes(true)?.to_bytes()?;
    let image = |b: &[u8]| {
        let pixels = b.chunks(c + 1);
        let mut image = ImageU8::new(h, w, c, pixels.clone().flat_map(|p| p[..c].to_vec()).collect())?;
        image.opacity = pixels.map(|p| p[c]).collect();
        Ok(image)
    };
    bytes.chunks(h * w * (c + 1)).map(image).collect()
}

fn at(image: &ImageU8, y: usize, x: usize) -> [u8; 3] {
    let i = 3 * (y * image.size()[1] + x);
    [image.data[i], image.data[i + 1], image.data[i + 2]]
}

fn channel(image: &ImageU8, c: usize) -> Vec<u8> {
    image.data.iter().copied().skip(c).step_by(3).collect()
}

#[test]
fn check_1_grey_values() {
    let want = [118, 119, 120, 122, 135, 137, 138, 112, 153, 154, 128, 129, 170, 144, 145, 147];
    let grey = t().grey();
    assert_eq!(grey, want);
    let mean = grey.iter().map(|&v| f64::from(v)).sum::<f64>() / 16.0;
    assert_eq!(mean, 135.6875);
    // Contrast 0 is the mean, rounded.
    assert_eq!(at(&both(Op::Contrast, 0.0, &t(), WHITE), 2, 2), [136; 3]);
}

#[test]
fn check_2_blends() {
    let rows = [
        (Op::Color, [[133, 139, 142], [118, 143, 159], [58, 160, 227]]),
        (Op::Contrast, [[132, 137, 140], [117, 142, 158], [60, 162, 229]]),
        (Op::Brightness, [[9, 15, 18], [44, 69, 85], [182, 255, 255]]),
        (Op::Sharpness, [[96, 150, 135], [96, 150, 155], [96, 150, 234]]),
    ];
    assert_eq!(at(&t(), 1, 2), [96, 150, 185]);
    for (op, want) in rows {
        for (factor, want) in [0.1, 0.46, 1.9].into_iter().zip(want) {
            let out = both(op, factor, &t(), WHITE);
            assert_eq!(at(&out, 1, 2), want, "{op:?} {factor}");
            if op == Op::Sharpness {
                assert_eq!(at(&out, 0, 0), [0, 200, 5]);
            }
        }
        assert_eq!(both(op, 1.0, &t(), WHITE), t(), "{op:?} 1 is the identity");
    }
}

#[test]
fn check_3_autocontrast() {
    let out = both(Op::AutoContrast, 0.0, &t(), WHITE);
    let red = [0, 60, 121, 182, 24, 85, 145, 206, 48, 109, 170, 230, 72, 133, 194, 255];
    assert_eq!(channel(&out, 0), red);
    assert_eq!(at(&out, 1, 2), [145, 85, 255]);
    // A constant channel divides by nothing.
    let flat = ImageU8::new(2, 2, 3, [7, 9, 0].repeat(4)).expect("2x2x3");
    assert_eq!(both(Op::AutoContrast, 0.0, &flat, WHITE), flat);
}

#[test]
fn check_4_equalize() {
    assert_eq!(both(Op::Equalize, 0.0, &t(), WHITE), t());
    let ramp: Vec<u8> = (0..1024).map(|i| (i / 8) as u8).collect();
    let image = ImageU8::new(32, 32, 1, ramp.clone()).expect("32x32");
    let out = both(Op::Equalize, 0.0, &image, WHITE);
    let lut: HashMap<u8, u8> = ramp.into_iter().zip(out.data).collect();
    assert_eq!([lut[&0], lut[&1], lut[&64], lut[&127]], [0, 3, 171, 255]);
}

#[test]
fn check_5_solarize_and_posterize() {
    let x = t();
    assert_eq!(both(Op::Solarize, 256.0, &x, WHITE), x);
    let inverted = both(Op::Solarize, 0.0, &x, WHITE);
    assert!(inverted.data.iter().zip(&x.data).all(|(a, b)| a + b == 255));
    assert_eq!(both(Op::Solarize, 0.0, &inverted, WHITE), x);
    assert_eq!(both(Op::Posterize, 8.0, &x, WHITE), x);
    let one = ImageU8::new(1, 1, 1, vec![0x9f]).expect("1x1");
    assert_eq!(both(Op::Posterize, 4.0, &one, WHITE).data, [0x90]);
    let bits = both(Op::Posterize, 1.0, &x, WHITE);
    assert!(bits.data.iter().all(|v| [0, 128].contains(v)) && bits.data.contains(&128));
    assert_eq!(both(Op::Posterize, 1.0, &bits, WHITE), bits);
    assert!(both(Op::Posterize, 0.0, &x, WHITE).data.iter().all(|&v| v == 0));
}

#[test]
fn check_6_geometry() {
    let x = ImageU8::new(5, 5, 1, (0..25).collect()).expect("5x5");
    let black = Fill::Colour([0; 3]);
    let rotate = [0, 2, 3, 9, 0, 1, 7, 8, 13, 14, 5, 11, 12, 18, 19, 10, 11, 17, 17, 23, 0, 15, 21, 22, 0];
    assert_eq!(both(Op::Rotate, 30.0, &x, black).data, rotate);
    let shear_x = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 0, 16, 17, 18, 19, 0, 21, 22, 23, 24, 0];
    assert_eq!(both(Op::ShearX, 0.3, &x, black).data, shear_x);
    let shear_y = [0, 1, 7, 8, 9, 5, 6, 12, 13, 14, 10, 11, 17, 18, 19, 15, 16, 22, 23, 24, 20, 21, 0, 0, 0];
    assert_eq!(both(Op::ShearY, 0.3, &x, black).data, shear_y);
    assert_eq!(both(Op::TranslateX, 2.0, &x, black).data[..5], [2, 3, 4, 0, 0]);
    assert_eq!(both(Op::TranslateY, -2.0, &x, black).data[10..15], [0, 1, 2, 3, 4]);
}

#[test]
fn check_7_strengths() -> Result<()> {
    let size = [32, 32];
    let of = |p: Preset, op: Op, m: f64| p.param(op, m, false, size);
    let rows = |p: Preset, m: f64| {
        [Op::ShearX, Op::TranslateX, Op::Rotate, Op::Color, Op::Posterize, Op::Solarize].map(|op| of(p, op, m))
    };
    let same = |got: [f64; 6], want: [f64; 6]| {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} {want:?}");
    };
    for (m, want) in [
        (2.0, [0.06, 2.0, 6.0, 0.46, 4.0, 205.0]),
        (4.0, [0.12, 4.0, 12.0, 0.82, 3.0, 154.0]),
        (5.0, [0.15, 5.0, 15.0, 1.0, 2.0, 128.0]),
        (7.0, [0.21, 7.0, 21.0, 1.36, 2.0, 77.0]),
        (9.0, [0.27, 9.0, 27.0, 1.72, 1.0, 26.0]),
        (10.0, [0.3, 10.0, 30.0, 1.9, 0.0, 0.0]),
        (14.0, [0.42, 14.0, 42.0, 2.62, 0.0, 0.0]),
    ] {
        same(rows(Preset::AutoAugCifar, m), want);
    }
    for (m, want) in [
        (5.0, [0.05, 2.0, 5.0, 1.15, 7.0, 212.5]),
        (9.0, [0.09, 4.0, 9.0, 1.27, 7.0, 178.5]),
        (14.0, [0.14, 6.0, 14.0, 1.42, 6.0, 136.0]),
        (30.0, [0.3, 14.0, 30.0, 1.9, 4.0, 0.0]),
    ] {
        same(rows(Preset::Linear31, m), want);
    }
    same(rows(Preset::TpuImageNet, 5.0), [0.15, 50.0, 15.0, 1.0, 2.0, 128.0]);
    assert_eq!(Preset::Linear31.param(Op::Color, 14.0, true, size), 1.0 - 0.42);
    assert_eq!(Preset::AutoAugCifar.param(Op::Color, 9.0, true, size), 1.72);
    // M = 21 of a maximum of 30 degrees by the second scale: the product first.
    assert_eq!(Preset::AutoAugCifar.param(Op::Rotate, 21.0, true, size), -63.0);
    // Where the scale begins.
    let mut pictures = pictures();
    pictures.iter_mut().for_each(|p| p.data.iter_mut().for_each(|v| *v = (*v).min(254)));
    for op in Op::ALL {
        let start = of(Preset::Linear31, op, 0.0);
        let same = on_device(&[(op, start)], &pictures, Fill::Colour([0; 3]))? == pictures;
        assert_eq!(same, !matches!(op, Op::AutoContrast | Op::Equalize), "{op:?}");
        if matches!(op, Op::Color | Op::Contrast | Op::Brightness | Op::Sharpness) {
            assert_eq!(of(Preset::AutoAugCifar, op, 5.0), 1.0);
            assert_eq!(of(Preset::AutoAugCifar, op, 0.0), 0.1);
        }
    }
    assert_eq!(both(Op::Solarize, 255.0, &ImageU8::new(1, 1, 1, vec![255])?, WHITE).data, [0]);
    Ok(())
}

#[test]
fn check_8_composition() -> Result<()> {
    let policy = RandAugment::new(2, 9.0, Preset::AutoAugCifar)?;
    let mut image = ImageU8::new(1, 1, 1, vec![96])?;
    policy.apply_cpu(&mut image, &[(Op::Brightness, 1.9)])?;
    assert_eq!(image.data, [182]);
    policy.apply_cpu(&mut image, &[(Op::Solarize, 128.0)])?;
    assert_eq!(image.data, [73]);
    let mut again = ImageU8::new(1, 1, 1, vec![96])?;
    policy.apply_cpu(&mut again, &[(Op::Brightness, 1.9), (Op::Solarize, 128.0)])?;
    assert_eq!(again, image);
    Ok(())
}

#[test]
fn check_9_statistics() -> Result<()> {
    let policy = RandAugment::new(2, 9.0, Preset::Linear31)?;
    let mut counts: HashMap<Op, i64> = HashMap::new();
    let (mut negative, mut signed) = (0u32, 0u32);
    for index in 0..70_000 {
        for (op, param) in policy.plan([32, 32], 1, 3, index) {
            *counts.entry(op).or_default() += 1;
            if matches!(op, Op::Rotate | Op::ShearX | Op::ShearY | Op::TranslateX | Op::TranslateY) {
                signed += 1;
                negative += u32::from(param < 0.0);
            }
        }
    }
    assert_eq!(counts.len(), 14);
    assert!(counts.values().all(|n| (n - 10_000).abs() <= 400), "{counts:?}");
    let share = f64::from(negative) / f64::from(signed);
    // Half a per cent is 2.2 standard deviations of the 50,000 draws that show their sign.
    assert!((share - 0.5).abs() <= 0.005, "{share}");
    // Not the batch decides, but seed, epoch and number.
    let of = |seed, epoch, index| policy.plan([32, 32], seed, epoch, index);
    assert_eq!(of(1, 3, 17), of(1, 3, 17));
    let differ = (0..50).filter(|&i| of(1, 3, i) != of(1, 4, i)).count();
    let seeds = (0..50).filter(|&i| of(1, 3, i) != of(2, 3, i)).count();
    assert!(differ > 40 && seeds > 40, "{differ} {seeds}");
    let longer = RandAugment::new(5, 9.0, Preset::Linear31)?.plan([32, 32], 1, 3, 17);
    assert_eq!(longer[..2], of(1, 3, 17));
    let on = PixelOps::new(&gpu())?;
    let all = Tensor::from_bytes(&gpu(), PICTURES, &[16, 32, 32, 3])?;
    let whole = policy.apply_batch(&on, &all, &[3, 9, 0, 15, 3], 1, 2)?.bytes(false)?.to_bytes()?;
    let alone = policy.apply_batch(&on, &all, &[15], 1, 2)?.bytes(false)?.to_bytes()?;
    assert_eq!(whole[3 * 3072..4 * 3072], alone);
    Ok(())
}

#[test]
fn check_10_device_and_processor_agree_to_the_bit() -> Result<()> {
    let on = PixelOps::new(&gpu())?;
    // Real pictures, and noise of odd sizes, of one channel and of three, down to a pixel.
    let mut rng = Philox::new(4, 4);
    let mut sets = vec![([16, 32, 32, 3], PICTURES.to_vec())];
    for (i, shape) in [[9, 5, 7, 3], [6, 33, 31, 1], [4, 1, 1, 3], [5, 2, 2, 1], [7, 18, 40, 3]].into_iter().enumerate() {
        // Narrow ranges of values, for the tables.
        let (low, span) = [(0, 256), (17, 120), (3, 250), (90, 52), (60, 106)][i];
        let n: usize = shape.iter().product();
        sets.push((shape, (0..n).map(|_| (low + rng.below(span)) as u8).collect()));
    }
    for (shape @ [n, h, w, c], bytes) in sets {
        let all = Tensor::from_bytes(&gpu(), &bytes, &shape)?;
        let ids: Vec<u32> = (0..n as u32).rev().collect();
        for preset in [Preset::AutoAugCifar, Preset::TpuImageNet, Preset::Linear31] {
            for (epoch, m) in [2.0, 5.0, 9.0, 10.0].into_iter().enumerate() {
                let policy = RandAugment::new(3, m, preset)?;
                let out = policy.apply_batch(&on, &all, &ids, 7, epoch as u64)?;
                let got = out.bytes(true)?.to_bytes()?;
                for (k, &id) in ids.iter().enumerate() {
                    let from = &bytes[id as usize * h * w * c..][..h * w * c];
                    let mut image = ImageU8::new(h, w, c, from.to_vec())?;
                    let plan = policy.plan([h, w], 7, epoch as u64, u64::from(id));
                    policy.apply_cpu(&mut image, &plan)?;
                    let want = image.with_opacity();
                    let got = &got[k * h * w * (c + 1)..][..h * w * (c + 1)];
                    assert_eq!(got, want, "{shape:?}, image {id}, {preset:?} M = {m}: {plan:?}");
                }
            }
        }
    }
    Ok(())
}

fn op_named(name: &str) -> Op {
    Op::ALL.into_iter().find(|op| format!("{op:?}") == name).unwrap_or_else(|| panic!("no operation `{name}`"))
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn both_equal_pillow_on_real_pictures() -> Result<()> {
    let number = |v: &str| v.parse::<f64>().expect("a number");
    let mut seen = 0;
    for line in PILLOW.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [mode, rest, hash] = parts[..] else { panic!("{line}") };
        let (ops, fill, opacity): (Vec<(Op, Param)>, Fill, bool) = match mode {
            "Chain" | "RGBA" => {
                let ops = rest.split(',').map(|o| o.split_once(':').expect("a pair"));
                let fill = if mode == "RGBA" { Fill::Mean } else { WHITE };
                (ops.map(|(op, v)| (op_named(op), number(v))).collect(), fill, mode == "RGBA")
            }
            op => (vec![(op_named(op), number(rest))], WHITE, false),
        };
        let want = u64::from_str_radix(hash, 16).expect("a hash");
        let mut cpu = pictures();
        for image in &mut cpu {
            for &(op, v) in &ops {
                *image = op_apply(op, v, image, fill)?;
            }
        }
        let bytes = |i: &ImageU8| if opacity { i.with_opacity() } else { i.data.clone() };
        assert_eq!(fnv1a(cpu.iter().flat_map(bytes)), want, "the processor: {line}");
        assert_eq!(fnv1a(on_device(&ops, &pictures(), fill)?.iter().flat_map(bytes)), want, "the device: {line}");
        seen += 1;
    }
    assert_eq!(seen, 128);
    Ok(())
}

#[test]
fn transparent_pixels_become_the_mean() -> Result<()> {
    let data = Dataset {
        name: "pictures".into(),
        images: PICTURES.to_vec(),
        labels: (0..16).map(|i| i % 10).collect(),
        height: 32,
        width: 32,
        channels: 3,
        classes: (0..10).map(|i| i.to_string()).collect(),
    };
    let stats = data.channel_stats()?;
    let images = Images::upload(&gpu(), &data, &stats)?;
    let after = Augment { pad: 4, fill: Padding::Mean, flip: 0.5, cutout: 10, ..images.normalise().clone() };
    let ids = [3, 11, 0, 7, 5];
    let indices = Tensor::from_u32(&gpu(), &ids, &[5])?;
    let s = Stream::new(1, 2);
    let on = PixelOps::new(&gpu())?;
    let pixels = on.gather(images.pixels(), &indices)?;
    // Nothing done: the same crops, mirror images and holes as without words in between.
    let plain = after.apply(images.pixels(), &indices, s)?.to_vec()?;
    assert_eq!(pixels.augment(&after, &indices, s)?.to_vec()?, plain);
    // Moved by 12 columns: those are the mean, here without a crop.
    let moved = on.apply(&pixels, &[PixelOp::Affine([1.0, 0.0, 12.0, 0.0, 1.0, 0.0]); 5], [0; 4])?;
    let none = images.normalise();
    let (got, still) = (moved.augment(none, &indices, s)?.to_vec()?, pixels.augment(none, &indices, s)?.to_vec()?);
    for (i, (&g, _)) in got.iter().zip(&still).enumerate() {
        let column = i / 3 % 32;
        assert_eq!(g, if column < 20 { still[i + 36] } else { 0.0 }, "element {i}");
    }
    // An opaque black is an ordinary one.
    let black = on.apply(&pixels, &[PixelOp::Affine([1.0, 0.0, 12.0, 0.0, 1.0, 0.0]); 5], [0, 0, 0, 255])?;
    let want = -stats.mean[0] / stats.std[0];
    assert!((black.augment(none, &indices, s)?.to_vec()?[31 * 3] - want).abs() < 1e-5);
    let pipeline = Pipeline::new(&images, Some(RandAugment::new(2, 9.0, Preset::AutoAugCifar)?), after.clone())?;
    assert_eq!(pipeline.batch(&ids, 0, 1)?.to_vec()?, pipeline.batch(&ids, 0, 1)?.to_vec()?);
    assert_ne!(pipeline.batch(&ids, 0, 1)?.to_vec()?, pipeline.batch(&ids, 0, 2)?.to_vec()?);
    assert_eq!(pipeline.batch(&[7], 0, 1)?.to_vec()?, pipeline.batch(&ids, 0, 1)?.slice(0, 3, 4, 1)?.to_vec()?);
    Ok(())
}

#[test]
fn mistakes_are_errors() -> Result<()> {
    let text = |e: std::result::Result<RandAugment, Error>| e.unwrap_err().to_string();
    assert!(text(RandAugment::new(2, 14.0, Preset::AutoAugCifar)).contains("maximum 10"));
    assert!(RandAugment::extrapolated(2, 14.0, Preset::AutoAugCifar).is_ok());
    assert!(RandAugment::new(2, 14.0, Preset::Linear31).is_ok());
    for (n, m) in [(17, 5.0), (2, -1.0), (2, f32::NAN)] {
        assert!(RandAugment::new(n, m, Preset::Linear31).is_err());
    }
    assert!(RandAugment::new(1, 1.0, Preset::Linear31)?.with_ops(&[]).is_err());
    assert!(ImageU8::new(2, 2, 2, vec![0; 8]).is_err() && ImageU8::new(2, 2, 3, vec![0; 8]).is_err());
    assert!(op_apply(Op::Rotate, f64::NAN, &t(), WHITE).is_err() && Op::Color.on_device(f64::NAN, [4, 4]).is_err());
    let on = PixelOps::new(&gpu())?;
    let two = Tensor::from_bytes(&gpu(), &[0; 2 * 8], &[2, 2, 2, 2])?;
    let ids = Tensor::from_u32(&gpu(), &[0, 1], &[2])?;
    assert!(on.gather(&two, &ids).err().is_some_and(|e| e.to_string().contains("1 or 3 channels")));
    let grey = on.gather(&two.reshape(&[4, 2, 2, 1])?, &ids)?;
    assert!(on.apply(&grey, &[PixelOp::Identity], [0; 4]).is_err());
    assert!(on.apply(&grey, &[PixelOp::Affine([1.0, 0.0, 1e9, 0.0, 1.0, 0.0]); 2], [0; 4]).is_err());
    assert!(on.apply(&grey, &[PixelOp::Color(f32::INFINITY); 2], [0; 4]).is_err());
    assert_eq!(quantise(&[0.0, 0.5, 1.0, -1.0, 2.0, 0.00196]), [0, 128, 255, 0, 255, 0]);
    Ok(())
}

#[test]
fn the_grid_takes_the_smaller_of_equals() -> Result<()> {
    let report = grid_search(&[2, 1], &[9.0, 5.0], |n, m| Ok(if m == 5.0 || n == 1 { 0.7 } else { 0.6 }))?;
    assert_eq!((report.best, report.table.len()), ((1, 5.0), 4));
    let best = grid_search(&[1, 2], &[2.0, 5.0], |n, m| Ok(n as f32 * m))?.best;
    assert_eq!(best, (2, 5.0));
    assert!(grid_search(&[], &[1.0], |_, _| Ok(1.0)).is_err());
    assert!(grid_search(&[1], &[1.0], |_, _| Ok(f32::NAN)).is_err());
    assert!(grid_search(&[1], &[1.0], |_, _| Err(Error::value("model", "no"))).is_err());
    Ok(())
}

#[test]
fn recipe_brings_back_every_arm() -> Result<()> {
    assert_eq!(digits().train.channels, 1);
    let outcome = super::PAPER.run(&mut Context::new(&gpu(), papers::Preset::Smoke, &mut Silent))?;
    assert_eq!(outcome.arms.len(), 5);
    assert!(outcome.comparisons.iter().all(|c| outcome.judge(c).is_some()));
    assert!(outcome.arms.iter().all(|a| outcome.mean(&a.name, "augmentation").is_some_and(|m| m.0 > 0.0)));
    let sheet = &outcome.pictures[0];
    assert_eq!(sheet.rgb.len(), 3 * sheet.width * sheet.height);
    Ok(())
}
