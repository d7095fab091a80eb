//! Random tensors against the same words drawn in Rust, and what drops by chance.

use shadegrad::Tensor;
use shadegrad::augment::Mix;
use shadegrad::rng::Stream;

use crate::case::{Case, rand};
use crate::oracle::{self, A};

const S: Stream = Stream { seed: 0x0123_4567_89ab_cdef, stream: 0xfedc_ba98_7654_3210 };

fn same(s: Stream) -> oracle::random::Stream {
    oracle::random::Stream { seed: s.seed, stream: s.stream }
}

/// A case of a function without inputs: the input only names the device.
fn drawn(
    name: &str,
    engine: impl Fn(&Tensor) -> shadegrad::Result<Tensor> + Send + Sync + 'static,
    want: impl Fn() -> A + Send + Sync + 'static,
) -> Case {
    Case::new(name, vec![rand(&[1])], move |t| engine(&t[0]), move |_| want()).grad(false)
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [&[1][..], &[], &[3], &[2, 0], &[4], &[5, 7], &[2, 3, 341]] {
        let shape = shape.to_vec();
        let at = move || shape.clone();
        let (a, b) = (at.clone(), at.clone());
        cases.push(drawn(
            &format!("random/uniform_{:?}", at()),
            move |t| Tensor::uniform(t.gpu(), &a(), S, 0.0, 1.0),
            move || oracle::random::uniform(&b(), same(S)),
        ));
        let (a, b) = (at.clone(), at.clone());
        cases.push(drawn(
            &format!("random/uniform_range_{:?}", at()),
            move |t| Tensor::uniform(t.gpu(), &a(), S, -3.0, 0.5),
            move || oracle::random::uniform(&b(), same(S)).mapv(|u| -3.0 + 3.5 * u),
        ));
        let (a, b) = (at.clone(), at.clone());
        cases.push(drawn(
            &format!("random/normal_{:?}", at()),
            move |t| Tensor::normal(t.gpu(), &a(), S, 0.5, 2.0),
            move || oracle::random::normal(&b(), same(S)).mapv(|z| 0.5 + 2.0 * z),
        ));
        let (a, b) = (at.clone(), at.clone());
        cases.push(drawn(
            &format!("random/bernoulli_{:?}", at()),
            move |t| Tensor::bernoulli(t.gpu(), &a(), S, 0.3),
            move || oracle::random::bernoulli(&b(), f64::from(0.3f32), same(S)),
        ));
        let a = at();
        cases.push(
            Case::new(
                format!("random/dropout_{:?}", at()),
                vec![rand(&a)],
                |t| t[0].dropout(0.4, S),
                |x| oracle::random::dropout(&x[0], f64::from(0.4f32), same(S)),
            )
            .grad(a.iter().product::<usize>() < 100),
        );
    }
    for n in [0, 1, 2, 5, 64, 257, 3000] {
        cases.push(drawn(
            &format!("random/permutation_{n}"),
            move |t| Tensor::permutation(t.gpu(), n, S),
            move || {
                let order: Vec<f64> = oracle::random::permutation(n, same(S)).into_iter().map(|i| i as f64).collect();
                oracle::array(&[n], &order)
            },
        ));
    }
    for p in [0.0f32, 0.5, 1.0] {
        cases.push(drawn(
            &format!("random/bernoulli_p{p}"),
            move |t| Tensor::bernoulli(t.gpu(), &[37], S, p),
            move || oracle::random::bernoulli(&[37], f64::from(p), same(S)),
        ));
    }
    for shape in [&[1][..], &[5], &[6, 3], &[3, 2, 4], &[9, 1, 1], &[7, 2, 3], &[41], &[0, 4], &[4, 0]] {
        cases.push(Case::new(
            format!("random/drop_path_{shape:?}"),
            vec![rand(shape)],
            |t| t[0].drop_path(0.5, S),
            |x| oracle::random::drop_path(&x[0], 0.5, same(S)),
        ));
    }
    for (shape, rect) in [
        (&[3, 4][..], None),
        (&[5, 3], None),
        (&[3, 4, 3, 2], Some([1u32, 0, 3, 2])),
        (&[2, 3, 3, 1], Some([0, 1, 2, 3])),
        (&[4, 2, 2, 0], Some([0, 0, 1, 1])),
        // More than a row of the grid has in tests, in fours and not.
        (&[3, 32, 64], None),
        (&[3, 29, 17], None),
    ] {
        let n = shape[0];
        let mix = Mix { lambda: 0.25, partner: (0..n).map(|i| ((i + 1) % n) as u32).collect(), rect };
        let small = shape.iter().product::<usize>() < 1000;
        cases.push(
            Case::new(
                format!("random/mix_{shape:?}_{rect:?}"),
                vec![rand(shape)],
                move |t| mix.apply(&t[0]),
                move |x| {
                    A::from_shape_fn(x[0].raw_dim(), |i| {
                        let own = x[0][i.clone()];
                        let mut at = i.clone();
                        at[0] = (i[0] + 1) % n;
                        match rect {
                            None => 0.25 * own + 0.75 * x[0][at],
                            Some([y0, x0, y1, x1]) => {
                                let inside = (y0..y1).contains(&(i[1] as u32)) && (x0..x1).contains(&(i[2] as u32));
                                if inside { x[0][at] } else { own }
                            }
                        }
                    })
                },
            )
            .grad(small),
        );
    }
    cases
}
