//! Normalisation: all layouts, with and without scale and shift; fused gradients against those of tensor operations.

use shadegrad::Tensor;

use crate::case::{Case, fixed, rand, range};
use crate::oracle::{A, norm as o};

const EPS: f32 = 1e-3;

fn eps() -> f64 {
    f64::from(EPS)
}

/// The inputs `x`, gamma and beta of a case, as far as it has them.
fn split<T>(t: &[T], gamma: bool, beta: bool) -> (&T, Option<&T>, Option<&T>) {
    (&t[0], gamma.then(|| &t[1]), beta.then(|| &t[1 + usize::from(gamma)]))
}

type Op = fn(&Tensor, Option<&Tensor>, Option<&Tensor>) -> shadegrad::Result<Tensor>;
type Shapes = &'static [&'static [usize]];
type Oracle = fn(&A, Option<&A>, Option<&A>) -> A;

/// How far the fused gradients of all inputs are from those that can be differentiated again, relative to these; the
/// oracle is zero.
fn fused_against_graph(t: &[Tensor], gamma: bool, beta: bool, op: Op) -> shadegrad::Result<Tensor> {
    let (weight, inputs) = t.split_last().expect("the last input weighs the result");
    let grads = |graph: bool| -> shadegrad::Result<Vec<Tensor>> {
        let leaves: Vec<Tensor> = inputs.iter().map(Tensor::leaf).collect();
        let (x, g, b) = split(&leaves, gamma, beta);
        let loss = op(x, g, b)?.mul(weight)?.sum_to(&[])?;
        let targets: Vec<&Tensor> = leaves.iter().collect();
        if graph {
            shadegrad::autograd::grad_create_graph(&loss, &targets)
        } else {
            shadegrad::autograd::grad(&loss, &targets)
        }
    };
    let zero = Tensor::scalar(t[0].gpu(), 0.0)?;
    let (mut distance, mut size) = (zero.clone(), zero);
    for (fused, graph) in grads(false)?.iter().zip(grads(true)?) {
        let graph = graph.detach();
        distance = distance.add(&fused.sub(&graph)?.square()?.sum_to(&[])?)?;
        size = size.add(&graph.square()?.sum_to(&[])?)?;
    }
    // The one is for gradients that vanish, such as those through a single row.
    distance.sqrt()?.div(&size.sqrt()?.add_scalar(1.0)?)
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let ops: [(&str, Op, Oracle, Shapes, Shapes); 7] = [
        (
            "batch_norm",
            |x, g, b| Ok(x.batch_norm(g, b, EPS)?.y),
            |x, g, b| o::batch_norm(x, g, b, eps()).0,
            &[&[6, 1], &[5, 3], &[7, 4], &[2, 3, 2, 4], &[3, 5]],
            &[&[300, 5], &[700, 8], &[2, 17, 19, 36], &[3, 1030], &[40, 260], &[1, 4]],
        ),
        (
            "batch_norm_relu",
            |x, g, b| Ok(x.batch_norm_relu(g, b, EPS)?.y),
            |x, g, b| o::batch_norm(x, g, b, eps()).0.mapv(|v| v.max(0.0)),
            &[&[5, 3], &[3, 2, 2, 4]],
            &[&[300, 5], &[65, 12]],
        ),
        (
            "batch_norm/mean",
            |x, g, b| Ok(x.batch_norm(g, b, EPS)?.mean),
            |x, g, b| o::batch_norm(x, g, b, eps()).1,
            &[],
            &[&[7, 3], &[1000, 12], &[3000, 1]],
        ),
        (
            "batch_norm/var",
            |x, g, b| Ok(x.batch_norm(g, b, EPS)?.var),
            |x, g, b| o::batch_norm(x, g, b, eps()).2,
            &[],
            &[&[7, 3], &[1000, 12], &[3000, 1]],
        ),
        (
            "layer_norm",
            |x, g, b| x.layer_norm(g, b, EPS),
            |x, g, b| o::layer_norm(x, g, b, eps()),
            &[
                &[5],
                &[6, 3],
                &[3, 8],
                &[40, 4],
                &[2, 3, 12],
                &[4, 9],
                &[36, 3],
                // Rows held in registers: the longest of each kernel, and the next.
                &[2, 32],
                &[3, 36],
                &[2, 64],
                &[2, 68],
                &[2, 128],
                &[2, 132],
                &[2, 256],
                &[2, 260],
            ],
            &[&[3, 64], &[70, 16], &[33, 100], &[3, 1030], &[2, 5000], &[0, 4], &[130, 7]],
        ),
        (
            "group_norm",
            |x, g, b| x.group_norm(2, g, b, EPS),
            |x, g, b| o::group_norm(x, 2, g, b, eps()),
            &[&[2, 3, 2, 4], &[3, 2, 6], &[4, 10]],
            &[&[3, 9, 7, 36], &[2, 300, 6], &[0, 2, 2, 4], &[5, 33, 2]],
        ),
        (
            "instance_norm",
            |x, g, b| x.instance_norm(g, b, EPS),
            |x, g, b| o::instance_norm(x, g, b, eps()),
            &[&[2, 3, 2, 3], &[2, 5, 4]],
            &[&[2, 9, 8, 8], &[3, 200, 5], &[70, 3, 1]],
        ),
    ];
    for (name, op, oracle, small, large) in ops {
        for (i, &shape) in small.iter().chain(large).enumerate() {
            // All four choices of scale and shift for each operation, both for the first shape.
            // At large ones the sums for their gradients have their tiles and chunks: none goes without.
            let choices = [(true, true), (i >= small.len(), false), (true, false), (false, true)];
            let (gamma, beta) = choices[i % 4];
            let c = shape[shape.len() - 1];
            let inputs = || {
                let mut inputs = vec![range(shape, -2.0, 3.0)];
                inputs.extend(gamma.then(|| range(&[c], 0.5, 1.5)));
                inputs.extend(beta.then(|| rand(&[c])));
                inputs
            };
            let label =
                format!("{name}/{shape:?}{}{}", if gamma { "_gamma" } else { "" }, if beta { "_beta" } else { "" });
            let run = move |t: &[Tensor]| {
                let (x, g, b) = split(t, gamma, beta);
                op(x, g, b)
            };
            let reference = move |a: &[A]| {
                let (x, g, b) = split(a, gamma, beta);
                oracle(x, g, b)
            };
            let case = Case::new(label.clone(), inputs(), run, reference);
            all.push(if i < small.len() { case } else { case.grad(false) });
            if name.contains('/') || shape.contains(&0) {
                continue;
            }
            let mut weighted = inputs();
            weighted.push(rand(shape));
            all.push(
                Case::new(
                    format!("{label}_fused_grad"),
                    weighted,
                    move |t| fused_against_graph(t, gamma, beta, op),
                    |_| crate::oracle::array(&[], &[0.0]),
                )
                .grad(false)
                // The tolerance is a share of 1e-3 where the oracle is zero; both sides are f32.
                .tol(2000.0),
            );
        }
    }
    for (shape, gamma, beta) in
        [(&[4, 3][..], true, true), (&[2, 2, 4], false, false), (&[5, 4], true, false), (&[3, 5], false, true)]
    {
        let c = shape[shape.len() - 1];
        let mut inputs = vec![rand(shape), rand(&[c]), range(&[c], 0.3, 2.0)];
        inputs.extend(gamma.then(|| range(&[c], 0.5, 1.5)));
        inputs.extend(beta.then(|| rand(&[c])));
        all.push(Case::new(
            format!("batch_norm_eval/{shape:?}"),
            inputs,
            move |t| {
                let (_, g, b) = split(&t[2..], gamma, beta);
                t[0].batch_norm_eval(&t[1], &t[2], g, b, EPS)
            },
            move |a| {
                let (_, g, b) = split(&a[2..], gamma, beta);
                o::batch_norm_eval(&a[0], &a[1], &a[2], g, b, eps())
            },
        ));
    }
    // A mean that is trained beside a variance that is not.
    all.push(
        Case::new(
            "batch_norm_eval/trained_mean",
            vec![rand(&[4, 3]), rand(&[3]), range(&[3], 0.3, 2.0)],
            |t| t[0].batch_norm_eval(&t[1], &t[2], None, None, EPS),
            |a| o::batch_norm_eval(&a[0], &a[1], &a[2], None, None, eps()),
        )
        .inputs_without_grad(&[2]),
    );
    all.push(
        Case::new(
            "batch_norm_eval/frozen_grad",
            vec![rand(&[4, 3]), rand(&[3]), range(&[3], 0.3, 2.0), range(&[3], 0.5, 1.5)],
            |t| {
                let x = t[0].leaf();
                let y = x.batch_norm_eval(&t[1], &t[2], Some(&t[3]), None, EPS)?;
                Ok(shadegrad::autograd::grad(&y.sum_to(&[])?, &[&x])?.remove(0))
            },
            |a| A::zeros(a[0].raw_dim()) + &a[3] / &a[2].mapv(|v| (v + eps()).sqrt()),
        )
        .grad(false),
    );
    // A mean a thousand times the deviation must not eat it: naive sums of squares would.
    let offset: Vec<f64> = (0..600).map(|i| 1000.0 + ((i * 7919) % 601) as f64 / 300.0).collect();
    for (name, op, oracle) in [ops[0], ops[4], ops[6]].map(|o| (o.0, o.1, o.2)) {
        all.push(
            Case::new(
                format!("{name}/offset"),
                vec![fixed(&offset, &[2, 100, 3])],
                move |t| op(&t[0], None, None),
                move |a| oracle(&a[0], None, None),
            )
            .grad(false)
            // Elements of 1000 are themselves off by 3e-5 once their mean is subtracted in f32.
            .tol(100.0),
        );
    }
    all.push(
        Case::new(
            "batch_norm/running",
            vec![rand(&[3]), range(&[3], 0.1, 1.0), rand(&[3]), range(&[3], 0.1, 1.0)],
            |t| {
                let gpu = t[0].gpu();
                let [mean, var] = [2, 3].map(|i| t[i].mul_scalar(1.0));
                let (mean, var) = (mean?, var?);
                let running = (mean.storage(), var.storage());
                shadegrad::kernels::norm::update_running(gpu, (t[0].storage(), t[1].storage()), running, 0.1, 5, 3)?;
                mean.add(&var.mul_scalar(100.0)?)
            },
            |a| {
                let mean = 0.9 * &a[2] + 0.1 * &a[0];
                let var = 0.9 * &a[3] + 0.1 * 1.25 * &a[1];
                mean + 100.0 * var
            },
        )
        .grad(false),
    );
    all
}
