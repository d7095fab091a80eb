//! Ordering by several objectives, all minimised (Deb et al., "A fast and elitist multiobjective genetic algorithm:
//! NSGA-II", 2002).

/// Whether `a` is nowhere worse than `b` and somewhere better, in the first `k` objectives.
///
/// ```
/// use shadegrad_models::papers::eeea_net::nsga2::dominates;
/// assert!(dominates(&[1.0, 2.0], &[1.0, 3.0], 2));
/// assert!(!dominates(&[1.0, 2.0], &[0.0, 3.0], 2));
/// ```
pub fn dominates(a: &[f64], b: &[f64], k: usize) -> bool {
    let pairs = || a.iter().zip(b).take(k);
    pairs().all(|(x, y)| x <= y) && pairs().any(|(x, y)| x < y)
}

/// Fronts of non-dominated points by the first `k` objectives: the first is dominated by none, the next only by those
/// before, and so on. Each holds numbers of points in rising order; equal points share a front.
///
/// ```
/// use shadegrad_models::papers::eeea_net::nsga2::fronts;
/// let points = [vec![1.0, 1.0], vec![2.0, 2.0], vec![0.0, 3.0]];
/// assert_eq!(fronts(&points, 2), [vec![0, 2], vec![1]]);
/// ```
pub fn fronts(points: &[Vec<f64>], k: usize) -> Vec<Vec<usize>> {
    let mut dominators: Vec<usize> =
        points.iter().map(|p| points.iter().filter(|q| dominates(q, p, k)).count()).collect();
    let mut left: Vec<usize> = (0..points.len()).collect();
    let mut all = Vec::new();
    while !left.is_empty() {
        let (front, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|&&i| dominators[i] == 0);
        // Dominance is a strict order (a NaN neither dominates nor is dominated), so a front is never empty.
        for &i in &rest {
            dominators[i] -= front.iter().filter(|&&f| dominates(&points[f], &points[i], k)).count();
        }
        all.push(front);
        left = rest;
    }
    all
}

/// Crowding distance of each member of `front`, in its order: over all objectives, the gap between the neighbours in the
/// order of that objective divided by its range; infinite for the first and the last. An objective that all share is left
/// out. Distances are within the front, as Deb et al. define them.
///
/// ```
/// use shadegrad_models::papers::eeea_net::nsga2::crowding;
/// let points = [vec![0.0, 2.0], vec![1.0, 1.0], vec![2.0, 0.0]];
/// assert_eq!(crowding(&points, &[0, 1, 2]), [f64::INFINITY, 2.0, f64::INFINITY]);
/// ```
pub fn crowding(points: &[Vec<f64>], front: &[usize]) -> Vec<f64> {
    let mut distance = vec![0.0; front.len()];
    let objectives = front.first().map_or(0, |&i| points[i].len());
    for m in 0..objectives {
        let column: Vec<f64> = front.iter().map(|&i| points[i].get(m).copied().unwrap_or_default()).collect();
        let mut order: Vec<usize> = (0..front.len()).collect();
        order.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
        let (low, high) = (column[order[0]], column[order[order.len() - 1]]);
        if high <= low {
            continue;
        }
        distance[order[0]] = f64::INFINITY;
        distance[order[order.len() - 1]] = f64::INFINITY;
        for three in order.windows(3) {
            distance[three[1]] += (column[three[2]] - column[three[0]]) / (high - low);
        }
    }
    distance
}

/// All points, front by front, within a front by falling crowding distance (equal ones by their numbers).
///
/// ```
/// use shadegrad_models::papers::eeea_net::nsga2::order;
/// let points = [vec![0.0, 2.0], vec![1.0, 1.0], vec![2.0, 0.0], vec![3.0, 3.0]];
/// assert_eq!(order(&points, 2), [0, 2, 1, 3]); // the ends first, what is dominated last
/// ```
pub fn order(points: &[Vec<f64>], k: usize) -> Vec<usize> {
    let mut all = Vec::with_capacity(points.len());
    for front in fronts(points, k) {
        let distance = crowding(points, &front);
        let mut at: Vec<usize> = (0..front.len()).collect();
        at.sort_by(|&a, &b| distance[b].total_cmp(&distance[a]));
        all.extend(at.into_iter().map(|i| front[i]));
    }
    all
}

/// The area that points of two objectives dominate, up to `reference`; points beyond it count for nothing.
///
/// ```
/// use shadegrad_models::papers::eeea_net::nsga2::hypervolume;
/// assert_eq!(hypervolume(&[[1.0, 2.0], [2.0, 1.0]], [3.0, 3.0]), 3.0);
/// ```
pub fn hypervolume(points: &[[f64; 2]], reference: [f64; 2]) -> f64 {
    let mut inside: Vec<[f64; 2]> =
        points.iter().copied().filter(|p| p[0] < reference[0] && p[1] < reference[1]).collect();
    inside.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut area, mut low) = (0.0, reference[1]);
    for p in inside {
        if p[1] < low {
            area += (reference[0] - p[0]) * (low - p[1]);
            low = p[1];
        }
    }
    area
}
