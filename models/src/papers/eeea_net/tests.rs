//! The paper's numbers, and those of the published genotypes.

use std::cell::Cell;

use shadegrad::data::synthetic;
use shadegrad::nn::{Arena, Builder, Cx, Module};
use shadegrad::rng::Philox;
use shadegrad::train::{Images, NoHooks};
use shadegrad::{CrossEntropy, Error, Gpu, Options, Result, Tensor};

use super::*;
use crate::papers::testing::gpu;

fn published(name: &str) -> Genotype {
    Genotype::published(name).unwrap()
}

fn cfg(c0: usize, layers: usize) -> NetCfg {
    NetCfg { c0, layers, classes: 10, aux: false, in_chans: 3 }
}

/// Parameters of a network as its layers declare them.
fn declared(genotype: &Genotype, cfg: NetCfg) -> usize {
    let mut builder = Builder::new();
    CellNet::new(&mut builder.root(), genotype, cfg).unwrap();
    builder.tables().unwrap().0.numel()
}

#[test]
fn parameter_counts_of_the_published_genotypes() {
    for (name, full, proxy) in [
        ("EA", 2_925_046, 274_362),
        ("EEEA_A", 1_769_230, 157_594),
        ("EEEA_B", 1_870_318, 177_050),
        ("EEEA_C", 3_513_358, 300_506),
    ] {
        let g = published(name);
        g.validate().unwrap();
        assert_eq!(param_count(&g, &cfg(36, 20)).unwrap(), full, "{name}");
        assert_eq!(param_count(&g, &cfg(16, 8)).unwrap(), proxy, "{name}");
        assert_eq!(declared(&g, cfg(36, 20)), full, "{name}");
        assert_eq!(declared(&g, cfg(16, 8)), proxy, "{name}");
    }
    assert_eq!(param_count(&published("EEEA_A"), &cfg(4, 5)).unwrap(), 8_978);
    let with = NetCfg { aux: true, ..cfg(16, 8) };
    let g = published("EEEA_A");
    assert_eq!(declared(&g, with), 157_594 + aux_param_count(&g, &with).unwrap());
}

#[test]
fn multiply_adds_of_the_published_genotypes() {
    for (name, want) in [("EEEA_A", 271_008_576), ("EEEA_C", 562_696_416), ("DARTS_V2", 528_359_040)] {
        assert_eq!(mac_count(&published(name), &cfg(36, 20), (32, 32)).unwrap(), want, "{name}");
    }
    // The other two to a tenth of a million.
    for (name, want) in [("EA", 466.6), ("EEEA_B", 301.9)] {
        let macs = mac_count(&published(name), &cfg(36, 20), (32, 32)).unwrap() as f64 / 1e6;
        assert!((macs - want).abs() < 0.05, "{name}: {macs}");
    }
}

#[test]
fn the_reference_darts_v2() {
    let g = published("DARTS_V2");
    assert_eq!(param_count(&g, &cfg(36, 20)).unwrap(), 3_349_342);
    assert_eq!(param_count(&g, &cfg(8, 6)).unwrap(), 39_298);
    assert_eq!(declared(&g, cfg(8, 6)), 39_298);
    // Its first block reads state 1, which the evolution cannot.
    g.buildable().unwrap();
    assert!(g.validate().unwrap_err().to_string().contains("block 0 of the normal cell"));
}

/// A genotype whose cells are one block of `op` on state 0, and a pool.
fn single(op: Op) -> Genotype {
    let block = Block { op1: op, i1: 0, op2: Op::MaxPool, i2: 0 };
    Genotype { normal: vec![block], reduce: vec![block], concat: Concat::LooseEnds }
}

#[test]
fn parameters_and_shapes_of_each_operation() {
    let want = [
        (Op::MaxPool, 0, 0),
        (Op::AvgPool, 0, 0),
        (Op::Skip, 0, 288),
        (Op::Sep3, 864, 864),
        (Op::Sep5, 1_376, 1_376),
        (Op::Dil3, 432, 432),
        (Op::Dil5, 688, 688),
        (Op::Conv71, 3_616, 3_616),
        (Op::Inv3, 752, 752),
        (Op::Inv5, 1_008, 1_008),
    ];
    let x = Tensor::ones(&gpu(), &[2, 8, 8, 16]).unwrap();
    for (op, one, two) in want {
        for (stride, params, side) in [(1, one, 8), (2, two, 4)] {
            assert_eq!(op_params(op, 16, stride), params, "{op:?}");
            let mut builder = Builder::new();
            let layer = net::Layer::new(&mut builder.root(), op, 16, stride);
            assert_eq!(builder.tables().unwrap().0.numel(), params, "{op:?}");
            // A pool has no parameters, and an arena needs one.
            builder.root().param("none", &[1], shadegrad::nn::Init::Zeros);
            let arena = Arena::new(&gpu(), &builder, 0).unwrap();
            let y = layer.forward(&Cx::train(&arena), &net::State::new(x.clone())).unwrap();
            assert_eq!(y.shape(), [2, side, side, 16], "{op:?}, stride {stride}");
        }
    }
}

#[test]
fn loose_ends_are_the_published_outputs() {
    for (name, normal, reduce) in [
        ("EA", &[5, 6][..], &[2, 4, 5, 6][..]),
        ("EEEA_A", &[5, 6], &[4, 5, 6]),
        ("EEEA_B", &[5, 6], &[4, 5, 6]),
        ("EEEA_C", &[3, 5, 6], &[5, 6]),
    ] {
        let g = published(name);
        assert_eq!((g.outputs(false), g.outputs(true)), (normal.to_vec(), reduce.to_vec()), "{name}");
    }
    assert_eq!(published("EA").concat(Concat::All).outputs(true), [2, 3, 4, 5, 6]);
}

/// The share of `draws` random genotypes below each of `betas` million parameters, their mean and their median in millions.
/// With `unused`, the layer that the published code builds and never uses is counted: 11 parameters a channel of each
/// cell's output.
fn acceptance(draws: usize, unused: bool, betas: [f64; 3]) -> ([f64; 3], f64, f64) {
    let cfg = cfg(36, 20);
    let mut rng = Philox::new(1, 0);
    let mut sizes: Vec<f64> = (0..draws)
        .map(|_| {
            let g = Genotype::random(5, &mut rng);
            let extra = if unused {
                count::plan(&g, &cfg).unwrap().iter().map(|c| 11 * c.output).sum::<usize>()
            } else {
                0
            };
            (param_count(&g, &cfg).unwrap() + extra) as f64 / 1e6
        })
        .collect();
    sizes.sort_by(f64::total_cmp);
    let below = betas.map(|b| 100.0 * sizes.partition_point(|&s| s < b) as f64 / draws as f64);
    (below, sizes.iter().sum::<f64>() / draws as f64, sizes[draws / 2])
}

#[test]
fn acceptance_of_random_genotypes() {
    // The first line was published for 4,000 draws, whose own standard error is up to 0.8 points.
    for (unused, want, mean, median) in [(true, [2.7, 19.6, 35.9], 5.99, 5.82), (false, [3.3, 20.9, 36.0], 5.93, 5.76)] {
        let (below, m, middle) = acceptance(30_000, unused, [3.0, 4.0, 5.0]);
        for (got, want) in below.into_iter().zip(want) {
            assert!((got - want).abs() < 1.0, "{below:?} % with the unused layer {unused}");
        }
        assert!((m - mean).abs() < 0.05 && (middle - median).abs() < 0.05, "mean {m}, median {middle}");
    }
}

#[test]
fn acceptance_in_the_small_space() {
    let search = Search {
        population: 500,
        blocks: 3,
        full: cfg(8, 5),
        image: (16, 16),
        beta: Some(45_000),
        ..Search::default()
    };
    let macs = |g: &Genotype| mac_count(g, &cfg(8, 5), (16, 16)).unwrap() as f64 / 1e6;
    let params = |g: &Genotype| param_count(g, &cfg(8, 5)).unwrap() as f64;
    let mean = |all: &[Genotype], f: &dyn Fn(&Genotype) -> f64| all.iter().map(f).sum::<f64>() / all.len() as f64;
    let free = Search { population: 6_000, beta: None, ..search.clone() }.initial(&mut Philox::new(2, 0)).unwrap();
    let exit = search.initial(&mut Philox::new(3, 0)).unwrap();
    assert!(exit.genotypes.iter().all(|g| param_count(g, &cfg(8, 5)).unwrap() < 45_000));
    let accepted = 100.0 * (1.0 - exit.rejected as f64 / exit.draws as f64);
    assert!((accepted - 24.0).abs() < 3.0, "{accepted} % of {}", exit.draws);
    let (all, few) = (&free.genotypes, &exit.genotypes);
    assert!((mean(all, &params) - 58_800.0).abs() < 600.0, "{}", mean(all, &params));
    assert!((mean(few, &params) - 37_500.0).abs() < 600.0, "{}", mean(few, &params));
    assert!((mean(all, &macs) - 2.57).abs() < 0.03, "{}", mean(all, &macs));
    assert!((mean(few, &macs) - 1.78).abs() < 0.03, "{}", mean(few, &macs));
}

#[test]
fn the_early_exit_keeps_its_word() {
    for beta in [3_000_000, 4_000_000, 5_000_000] {
        let search = Search { beta: Some(beta), ..Search::default() };
        let made = search.initial(&mut Philox::new(0, 0)).unwrap();
        assert_eq!((made.genotypes.len(), made.draws - made.rejected), (40, 40));
        let full = NetCfg::full(10);
        assert!(made.genotypes.iter().all(|g| param_count(g, &full).unwrap() < beta));
    }
    let impossible = Search { beta: Some(100_000), max_draws: 200, ..Search::default() };
    let err = impossible.initial(&mut Philox::new(0, 0)).unwrap_err().to_string();
    assert!(err.contains("200 genotypes in a row") && err.contains("raise `beta`"), "{err}");
}

#[test]
fn fronts_and_crowding_of_two_objectives() {
    let points: Vec<Vec<f64>> =
        [(1., 5.), (2., 3.), (4., 2.), (5., 1.), (3., 4.), (5., 5.)].map(|(a, b)| vec![a, b]).into();
    let fronts = nsga2::fronts(&points, 2);
    assert_eq!(fronts, [vec![0, 1, 2, 3], vec![4], vec![5]]);
    assert_eq!(nsga2::crowding(&points, &fronts[0]), [f64::INFINITY, 1.5, 1.25, f64::INFINITY]);
    assert_eq!(nsga2::order(&points, 2), [0, 3, 1, 2, 4, 5]);
    // Equal points share a front; a front of equals has no distances.
    let equal = vec![vec![1.0, 1.0]; 3];
    assert_eq!(nsga2::fronts(&equal, 2), [vec![0, 1, 2]]);
    assert_eq!(nsga2::crowding(&equal, &[0, 1, 2]), [0.0; 3]);
    assert!(nsga2::fronts(&[], 2).is_empty());
}

#[test]
fn four_objectives_with_dominance_on_two() {
    let points: Vec<Vec<f64>> = [
        [9.0, 1.0, 0.1, 1.0],
        [8.0, 2.0, 0.2, 1.0],
        [7.0, 1.5, 0.1, 2.0],
        [10.0, 0.5, 0.05, 1.0],
        [9.0, 3.0, 0.4, 1.0],
        [7.0, 4.0, 0.5, 3.0],
    ]
    .map(Vec::from)
    .into();
    assert_eq!(nsga2::fronts(&points, 2), [vec![0, 2, 3], vec![1, 5], vec![4]]);
}

#[test]
fn the_dominated_area_by_hand() {
    // 3x1 of the first, 2x1 more of the second, 1x1 more of the third; a dominated and an outer point add nothing.
    let points = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [3.0, 3.5], [5.0, 0.0]];
    assert_eq!(nsga2::hypervolume(&points, [4.0, 4.0]), 6.0);
    assert_eq!(nsga2::hypervolume(&[], [1.0, 1.0]), 0.0);
}

/// Whether every gene is in its range.
fn in_range(genes: &[usize]) -> bool {
    genes.iter().enumerate().all(|(at, &g)| g < genetics::values(at, genes.len()))
}

#[test]
fn encoding_round_trip_and_ranges() {
    let mut rng = Philox::new(7, 0);
    for blocks in [1, 2, 5] {
        for _ in 0..200 {
            let genes = genetics::random(blocks, &mut rng);
            assert_eq!(genes.len(), 8 * blocks);
            assert!(in_range(&genes));
            let g = Genotype::from_chromosome(&genes).unwrap();
            assert_eq!(g.to_chromosome(), genes);
            assert_eq!(g.to_string().parse::<Genotype>().unwrap(), g);
            let other = genetics::random(blocks, &mut rng);
            let mut child = genetics::crossover(&genes, &other, &mut rng);
            assert!(in_range(&child));
            genetics::mutate(&mut child, &mut rng);
            assert!(in_range(&child));
            for compat in [false, true] {
                genetics::invert(&mut child, compat, &mut rng);
                assert!(in_range(&child), "{child:?}");
            }
        }
    }
    for (name, _) in PUBLISHED {
        let g = published(name);
        assert_eq!(g.to_string().parse::<Genotype>().unwrap(), g, "{name}");
    }
    // Block b of each cell has the same range.
    assert_eq!((0..16).map(|at| genetics::values(at, 16)).collect::<Vec<_>>(), [[10, 1, 10, 1, 10, 2, 10, 2]; 2].concat());
}

#[test]
fn an_inversion_exchanges_and_the_compatible_one_copies() {
    let mut rng = Philox::new(9, 0);
    let mut crossed = 0;
    for _ in 0..300 {
        // All states are 0, so that nothing is drawn anew; operations tell pairs apart.
        let mut genes: Vec<usize> = (0..24).map(|at| if at % 2 == 0 { at / 2 % 10 } else { 0 }).collect();
        let before = genes.clone();
        genetics::invert(&mut genes, false, &mut rng);
        let moved: Vec<usize> = (0..24).filter(|&at| genes[at] != before[at]).collect();
        let &[a, b] = &moved[..] else { panic!("{moved:?} moved") };
        assert!(b == a + 2 && (genes[a], genes[b]) == (before[b], before[a]));
        // Not over the border of the cells, at the twelfth gene.
        assert!(!(a < 12 && b >= 12), "{a} {b}");
        let mut genes = before.clone();
        genetics::invert(&mut genes, true, &mut rng);
        let moved: Vec<usize> = (0..24).filter(|&at| genes[at] != before[at]).collect();
        assert!(moved.len() == 1 && genes[moved[0]] == before[moved[0] + 2]);
        crossed += usize::from(moved[0] == 10);
    }
    assert!(crossed > 0);
}

#[test]
fn children_of_identical_parents_equal_them() {
    let mut rng = Philox::new(11, 0);
    let (a, b) = (genetics::random(5, &mut rng), genetics::random(5, &mut rng));
    let mut from_a = 0;
    for _ in 0..200 {
        assert_eq!(genetics::crossover(&a, &a, &mut rng), a);
        let child = genetics::crossover(&a, &b, &mut rng);
        assert!(child.iter().enumerate().all(|(i, &g)| g == a[i] || g == b[i]));
        from_a += (0..40).filter(|&i| a[i] != b[i] && child[i] == a[i]).count();
    }
    let differing = (0..40).filter(|&i| a[i] != b[i]).count() * 200;
    let share = from_a as f64 / differing as f64;
    assert!((share - 0.5).abs() < 0.03, "{share}");
}

#[test]
fn a_tournament_prefers_those_who_dominate() {
    let mut rng = Philox::new(13, 0);
    let points = vec![vec![1.0, 1.0], vec![2.0, 2.0], vec![3.0, 3.0], vec![4.0, 4.0]];
    let mut wins = [0; 4];
    for _ in 0..500 {
        let (a, b) = genetics::tournament(&points, &mut rng).unwrap();
        assert_ne!(a, b);
        wins[a] += 1;
        wins[b] += 1;
    }
    // The best wins always, the last never: two disjoint pairs are drawn.
    assert_eq!((wins[0], wins[3]), (500, 0));
    assert!(genetics::tournament(&points[..1], &mut rng).is_none());
}

#[test]
fn averages_of_a_constant_are_the_constant_at_the_borders_too() {
    let x = Tensor::full(&gpu(), &[2, 8, 8, 16], 3.0).unwrap();
    for stride in [1, 2] {
        let layer = net::Layer::new(&mut Builder::new().root(), Op::AvgPool, 16, stride);
        let mut builder = Builder::new();
        builder.root().param("none", &[1], shadegrad::nn::Init::Zeros);
        let arena = Arena::new(&gpu(), &builder, 0).unwrap();
        let y = layer.forward(&Cx::train(&arena), &net::State::new(x.clone())).unwrap();
        assert!(y.to_vec().unwrap().iter().all(|&v| (v - 3.0).abs() < 1e-6), "stride {stride}");
    }
}

#[test]
fn the_halving_skip_reads_every_second_pixel_of_both_grids() {
    let gpu = gpu();
    let mut builder = Builder::new();
    let layer = net::Layer::new(&mut builder.root(), Op::Skip, 2, 2);
    let arena = Arena::new(&gpu, &builder, 0).unwrap();
    // First output channel: first channel at even places; second: second channel at odd places.
    let state = arena.state().unwrap();
    let state: Vec<_> = state
        .into_iter()
        .map(|(name, shape, values)| {
            let values = match name.as_str() {
                "conv_1.weight" => vec![1.0, 0.0],
                "conv_2.weight" => vec![0.0, 1.0],
                _ => values,
            };
            (name, shape, values)
        })
        .collect();
    arena.load(&state).unwrap();
    let pixels: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let x = Tensor::from_slice(&gpu, &pixels, &[1, 4, 4, 2]).unwrap();
    // Fresh running statistics are those of a standard normal: the norm divides by sqrt(1 + 1e-5).
    let y = layer.forward(&Cx::eval(&arena), &net::State::new(x)).unwrap().to_vec().unwrap();
    let want = [0.0, 11.0, 4.0, 15.0, 16.0, 27.0, 20.0, 31.0];
    assert!(y.iter().zip(want).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-3), "{y:?}");
}

#[test]
fn gradients_reach_every_parameter_and_follow_differences() {
    let gpu = gpu();
    // All ten operations, both kinds of stride.
    let text = "max3.0 avg3.0 | sep3.1 skip.0 | dil5.2 conv71.0 | inv3.3 sep5.1 | dil3.4 inv5.0";
    let g: Genotype = format!("{text} ; {text}").parse().unwrap();
    g.validate().unwrap();
    let mut builder = Builder::new();
    let cells = CellNet::new(&mut builder.root(), &g, cfg(4, 3)).unwrap();
    let arena = Arena::new(&gpu, &builder, 3).unwrap();
    let mut rng = Philox::new(5, 0);
    let mut pixels = vec![0.0; 4 * 8 * 8 * 3];
    rng.fill_normal(&mut pixels, 0.0, 1.0);
    let x = Tensor::from_slice(&gpu, &pixels, &[4, 8, 8, 3]).unwrap();
    let y = Tensor::from_u32(&gpu, &[0, 1, 2, 3], &[4]).unwrap();
    let loss = || cells.forward(&Cx::train(&arena), &x).unwrap().cross_entropy(&y, CrossEntropy::default()).unwrap();
    arena.backward(&loss()).unwrap();
    let grads = arena.grads_flat().to_vec().unwrap();
    for e in arena.table().entries() {
        let some = grads[e.offset..][..e.len].iter().any(|g| *g != 0.0);
        assert!(some, "{} has no gradient", e.name);
    }
    // Along the gradient the loss falls by the square of its norm, to first order. ReLU and the largest of a window are
    // not smooth, so that the step must be small, and floats make it not too small.
    let values = arena.values_flat().to_vec().unwrap();
    let norm = grads.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
    let step = 1e-3 / norm.sqrt();
    let at = |sign: f64| {
        let moved: Vec<f32> =
            values.iter().zip(&grads).map(|(&v, &g)| (f64::from(v) + sign * step * f64::from(g)) as f32).collect();
        arena.set_values_flat(&Tensor::from_slice(&gpu, &moved, &[moved.len()]).unwrap()).unwrap();
        f64::from(loss().item().unwrap())
    };
    let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
    assert!((slope / norm - 1.0).abs() < 0.03, "slope {slope}, norm squared {norm}");
}

#[test]
fn drop_path_spares_identities_and_evaluation() {
    let gpu = gpu();
    // Sums of two identities: nothing can be dropped but in the reduction cells.
    let g: Genotype = "skip.0 skip.0 ; max3.0 max3.0".parse().unwrap();
    let mut builder = Builder::new();
    let cells = CellNet::new(&mut builder.root(), &g, cfg(4, 3)).unwrap();
    let arena = Arena::new(&gpu, &builder, 0).unwrap();
    let x = Tensor::ones(&gpu, &[2, 8, 8, 3]).unwrap();
    let run = |cx: &Cx, p| cells.outputs(cx, &x, p).unwrap().logits.to_vec().unwrap();
    assert_eq!(run(&Cx::eval(&arena), 0.9), run(&Cx::eval(&arena), 0.0));
    let bias = arena.state().unwrap().into_iter().find(|w| w.0 == "classifier.bias").unwrap().2;
    // Everything dropped in the reduction cells leaves the classifier with zeros.
    let all = run(&Cx::train(&arena).seeded(0, 0), 1.0);
    assert!(all.iter().zip(bias.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-6), "{all:?}");
}

#[test]
fn the_auxiliary_head_is_for_training_and_for_32_pixels() {
    let gpu = gpu();
    let g = published("EEEA_A");
    let mut builder = Builder::new();
    let cells = CellNet::new(&mut builder.root(), &g, NetCfg { aux: true, ..cfg(4, 3) }).unwrap();
    let arena = Arena::new(&gpu, &builder, 0).unwrap();
    let x = Tensor::ones(&gpu, &[2, 32, 32, 3]).unwrap();
    let out = cells.outputs(&Cx::train(&arena), &x, 0.0).unwrap();
    assert_eq!(out.aux.unwrap().shape(), [2, 10]);
    assert!(cells.outputs(&Cx::eval(&arena), &x, 0.0).unwrap().aux.is_none());
    let x = Tensor::ones(&gpu, &[2, 16, 16, 3]).unwrap();
    let err = cells.outputs(&Cx::train(&arena), &x, 0.0).err().unwrap().to_string();
    assert!(err.contains("auxiliary head") && err.contains("aux: false"), "{err}");
}

#[test]
fn bad_genotypes_and_sizes_are_errors() {
    let g = published("EEEA_A");
    let build = |g: &Genotype, cfg: NetCfg| {
        CellNet::new(&mut Builder::new().root(), g, cfg).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(build(&g, cfg(5, 5)).contains("must be even"));
    assert!(build(&g, cfg(4, 2)).contains("at least 3"));
    let mut far = single(Op::Skip);
    far.normal[0].i1 = 2;
    assert!(build(&far, cfg(4, 3)).contains("block 0 of the normal cell reads states 2 and 0"));
    let none = single(Op::Skip).concat(Concat::Explicit(vec![2], vec![3]));
    assert!(build(&none, cfg(4, 3)).contains("gives states [3]"));
    assert!(mac_count(&g, &cfg(4, 3), (30, 32)).unwrap_err().to_string().contains("multiples of 4"));
    assert!(Genotype::from_chromosome(&[0; 9]).unwrap_err().to_string().contains("9 genes"));
    assert!(Genotype::from_chromosome(&[0, 1, 0, 0, 0, 0, 0, 0]).is_err());
    assert!("max3.0 max4.0 ; max3.0 max3.0".parse::<Genotype>().unwrap_err().to_string().contains("`max4`"));
    assert!(Genotype::published("EEEA_D").unwrap_err().to_string().contains("EEEA_C"));
    assert_ne!(g.hash(), published("EEEA_B").hash());
    assert_ne!(g.hash(), g.clone().concat(Concat::All).hash());
}

/// A search that is quick without any training: accuracy is a function of the genes.
fn toy(beta: Option<usize>) -> Search {
    Search { population: 12, generations: 6, keep: 4, blocks: 3, full: cfg(8, 5), image: (16, 16), beta, ..Search::default() }
}

fn toy_accuracy(g: &Genotype) -> f64 {
    (g.hash() % 997) as f64 / 997.0 * 0.4 + 0.1
}

/// What a report says without times.
fn timeless(mut report: SearchReport) -> SearchReport {
    for i in report.front.iter_mut().chain(&mut report.history) {
        i.seconds = 0.0;
    }
    report
}

#[test]
fn a_search_trains_nothing_twice_and_nothing_too_large() {
    let search = toy(Some(45_000));
    let mut asked = Vec::new();
    let report = search
        .run(&mut |g| {
            asked.push(g.clone());
            Ok(toy_accuracy(g))
        })
        .unwrap();
    assert_eq!(asked.len(), report.evaluations);
    assert!(asked.iter().all(|g| param_count(g, &search.full).unwrap() < 45_000));
    let mut hashes: Vec<u64> = asked.iter().map(Genotype::hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), asked.len());
    assert_eq!(report.history.len(), 12 + 5 * 8);
    assert_eq!(report.history.iter().filter(|i| i.generation == 0).count(), report.draws - report.rejected);
    // Children may be too large: they are kept with accuracy 0, untrained.
    assert!(report.history.iter().all(|i| i.trained == (i.params < 45_000) && (i.trained || i.accuracy == 0.0)));
    let points: Vec<Vec<f64>> = report.front.iter().map(Individual::objectives).collect();
    assert!(points.iter().all(|p| points.iter().all(|q| !nsga2::dominates(p, q, 2))));
    // Parents survive, so the best of all is in the last population unless crowding pushed it out of a full front.
    let front = report.archive_front();
    assert!(front.windows(2).all(|w| w[0].params < w[1].params && w[0].accuracy < w[1].accuracy));
    // The same seed gives the same search.
    assert_eq!(timeless(search.run(&mut |g| Ok(toy_accuracy(g))).unwrap()), timeless(report.clone()));
    let other = Search { seed: 1, ..search }.run(&mut |g| Ok(toy_accuracy(g))).unwrap();
    assert_ne!(timeless(other), timeless(report));
}

#[test]
fn an_interrupted_search_ends_as_an_unbroken_one() {
    let folder = std::env::temp_dir().join(format!("shadegrad-eeea-net-{}", std::process::id()));
    std::fs::remove_dir_all(&folder).ok();
    let path = folder.join("search.json");
    let search = toy(Some(45_000));
    let whole = timeless(search.run(&mut |g| Ok(toy_accuracy(g))).unwrap());
    // Stopped again and again, each time before the fourth evaluation.
    let mut rounds = 0;
    let resumed = loop {
        let left = Cell::new(3);
        let outcome = search.run_saved(&path, &mut |g| {
            if left.get() == 0 {
                return Err(Error::value("test", "power cut"));
            }
            left.set(left.get() - 1);
            Ok(toy_accuracy(g))
        });
        rounds += 1;
        match outcome {
            Ok(report) => break report,
            Err(e) => assert!(e.to_string().contains("power cut"), "{e}"),
        }
    };
    assert!(rounds > 5, "{rounds} rounds");
    assert_eq!(timeless(resumed), whole);
    // A finished one is read back without another evaluation, and nothing but the file is left.
    let again = search.run_saved(&path, &mut |_| Err(Error::value("test", "asked"))).unwrap();
    assert_eq!(timeless(again), whole);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    // The file of another search, and one that is cut off, are refused.
    let other = Search { p_mut: 0.2, ..search.clone() };
    let err = other.run_saved(&path, &mut |_| Ok(0.0)).unwrap_err().to_string();
    assert!(err.contains("another search") && err.contains("p_mut"), "{err}");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let err = search.run_saved(&path, &mut |_| Ok(0.0)).unwrap_err().to_string();
    assert!(err.contains("no JSON") && err.contains("remove the file"), "{err}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn mistakes_in_a_search_are_errors() {
    let says = |search: Search, accuracy: f64, word: &str| {
        let err = search.run(&mut |_| Ok(accuracy)).unwrap_err().to_string();
        assert!(err.contains(word), "{err}");
    };
    says(Search { keep: 1, ..toy(None) }, 0.5, "at least 2");
    says(Search { keep: 12, ..toy(None) }, 0.5, "larger population");
    says(Search { p_mut: 1.5, ..toy(None) }, 0.5, "1.5");
    says(toy(None), f64::NAN, "accuracy of NaN");
    says(toy(None), 54.0, "accuracy of 54");
    // One block without mutation: crossover of four parents soon has no more children.
    says(Search { blocks: 1, p_mut: 0.0, p_inv: 0.0, max_draws: 300, ..toy(None) }, 0.5, "children in a row");
}

/// Made-up pictures, on which a proxy learns something in a few steps.
fn pictures(gpu: &Gpu, n: usize) -> Result<Images> {
    let data = synthetic::blobs(n, 4, 8, 8, 3, 0)?;
    Images::upload(gpu, &data, &data.channel_stats()?)
}

#[test]
fn a_second_genotype_makes_few_pipelines_and_a_third_none() {
    let gpu = Gpu::new(Options::from_env().unwrap()).unwrap();
    let (train, valid) = (pictures(&gpu, 32).unwrap(), pictures(&gpu, 16).unwrap());
    let net = NetCfg { classes: 4, ..cfg(4, 3) };
    let made = |text: &str| {
        let before = gpu.counters().pipelines_created;
        let g: Genotype = text.parse().unwrap();
        proxy_accuracy(&gpu, &g, net, &TrainCfg::plain(1, 16, 0), (&train, &valid)).unwrap();
        gpu.counters().pipelines_created - before
    };
    let first = made("sep3.0 max3.0 | dil3.1 skip.0 ; sep5.0 avg3.0 | inv3.1 skip.0");
    let second = made("dil5.0 inv5.0 | avg3.1 sep3.1 ; skip.0 max3.0 | sep3.1 inv5.1");
    let third = made("inv3.0 sep5.0 | skip.1 dil5.1 ; dil3.0 inv5.0 | max3.1 sep5.1");
    assert!(first > 20 && second <= 6 && third <= 1, "pipelines: {first}, {second}, {third}");
}

#[test]
fn training_learns_and_repeats_to_the_bit() {
    let gpu = gpu();
    let (train, valid) = (pictures(&gpu, 96).unwrap(), pictures(&gpu, 48).unwrap());
    let net = NetCfg { classes: 4, ..cfg(4, 3) };
    let g: Genotype = "sep3.0 max3.0 | dil3.1 skip.0 ; sep3.0 avg3.0 | inv3.1 skip.0".parse().unwrap();
    let run = |cfg: &TrainCfg| {
        train_cells(&gpu, &g, net, cfg, (&train, &valid), &mut NoHooks).unwrap()
    };
    let plain = TrainCfg::plain(4, 16, 0);
    let (a, b) = (run(&plain), run(&plain));
    assert!(a.valid.accuracy > 0.6, "{}", a.valid.accuracy);
    assert_eq!(a.valid.logits, b.valid.logits);
    // No block reads the last cell's output, so that a preprocessing and a whole cell lie idle.
    let idle = train_cells(&gpu, &single(Op::Sep3), net, &TrainCfg::plain(1, 48, 0), (&train, &valid), &mut NoHooks);
    assert!(idle.unwrap().train_loss.is_finite());
    // Everything on: augmentation, drop-path, cosine. Less is learnt, but it runs and is finite.
    let all = TrainCfg { epochs: 2, batch: 16, cutout: 4, pad: 2, ..TrainCfg::found(0) };
    assert!(run(&all).train_loss.is_finite());
}

#[test]
fn the_smoke_recipe_fills_every_figure() {
    let mut watch = crate::papers::Silent;
    let mut context = crate::papers::Context::new(&gpu(), crate::papers::Preset::Smoke, &mut watch);
    let outcome = PAPER.run(&mut context).unwrap();
    assert_eq!(outcome.arms.len(), 2);
    assert!(outcome.arms.iter().all(|a| a.runs.iter().all(|r| r.values.iter().all(Option::is_some))));
    assert!(outcome.comparisons.iter().all(|c| outcome.judge(c).is_some()));
    assert_eq!(outcome.charts.len(), 3);
}
