//! What the registry cannot say of spiking neurons: laws of spike counts, and that second derivatives are refused.

use shadegrad::autograd::{GradOptions, grad, grad_create_graph, grad_with};
use shadegrad::rng::Stream;
use shadegrad::{LifOptions, Tensor};

#[test]
fn a_second_derivative_through_spikes_is_an_error_that_names_them() {
    let gpu = super::gpu();
    let x = Tensor::uniform(&gpu, &[3, 5], Stream::new(1, 1), -0.5, 1.5).unwrap().leaf();
    let (threshold, leak) = (Tensor::scalar(&gpu, 1.0).unwrap(), Tensor::scalar(&gpu, 0.9).unwrap());
    let y = x.square().unwrap().lif(&threshold, &leak, &LifOptions::default()).unwrap();
    let g = grad_create_graph(&y.sum_to(&[]).unwrap(), &[&x]).unwrap().remove(0);
    let text = grad(&g.sum_to(&[]).unwrap(), &[&x]).unwrap_err().to_string();
    assert!(text.contains("`lif`") && text.contains("surrogate"), "{text}");
}

#[test]
fn constant_currents_give_the_counts_of_the_conversion_law() {
    // With leak 1 a current a fires max(0, ceil(T a / V) - 1) times in T steps, or always if a > V. Twelve steps of a
    // quarter end on the threshold, which does not fire.
    let gpu = super::gpu();
    let leak = Tensor::scalar(&gpu, 1.0).unwrap();
    for (current, level, steps, count) in
        [(0.25, 1.0, 12, 2), (1.0, 1.0, 5, 4), (1.7, 1.0, 5, 5), (0.25, 0.8, 20, 6), (-0.2, 1.0, 5, 0)]
    {
        let x = Tensor::full(&gpu, &[steps, 1], current).unwrap();
        let spikes = x.lif(&Tensor::scalar(&gpu, level).unwrap(), &leak, &LifOptions::default()).unwrap();
        let fired: f32 = spikes.to_vec().unwrap().iter().sum();
        assert_eq!(fired as i32, count, "{current} {level} {steps}");
    }
}

#[test]
fn scaling_currents_and_threshold_changes_nothing() {
    // So sum x dx + V dV = 0: the spikes are a function of degree 0, and so is the surrogate.
    let gpu = super::gpu();
    let x = Tensor::uniform(&gpu, &[6, 50], Stream::new(2, 5), -0.5, 1.5).unwrap().leaf();
    let threshold = Tensor::scalar(&gpu, 0.7).unwrap().leaf();
    let leak = Tensor::scalar(&gpu, 0.8).unwrap();
    let y = x.lif(&threshold, &leak, &LifOptions::default()).unwrap();
    let weights = Tensor::uniform(&gpu, y.shape(), Stream::new(2, 6), -1.0, 1.0).unwrap();
    let options = GradOptions::default();
    let grads = grad_with(&[&y], &[&x, &threshold], Some(&[&weights]), options).unwrap();
    let dot = |a: &Tensor, b: &Option<Tensor>| -> f32 {
        a.to_vec().unwrap().iter().zip(b.as_ref().unwrap().to_vec().unwrap()).map(|(a, b)| a * b).sum()
    };
    let (of_x, of_threshold) = (dot(&x, &grads[0]), dot(&threshold, &grads[1]));
    assert!((of_x + of_threshold).abs() < 1e-4 * of_threshold.abs().max(1.0), "{of_x} {of_threshold}");
}

#[test]
fn wrong_arguments_are_errors_that_say_so() {
    let gpu = super::gpu();
    let one = Tensor::scalar(&gpu, 1.0).unwrap();
    let x = Tensor::zeros(&gpu, &[3, 4]).unwrap();
    let lif = |x: &Tensor, v: &Tensor| x.lif(v, &one, &LifOptions::default()).unwrap_err().to_string();
    assert!(lif(&x, &Tensor::zeros(&gpu, &[4]).unwrap()).contains("one element"));
    assert!(lif(&one, &one).contains("time"));
    let short = Tensor::zeros(&gpu, &[3]).unwrap();
    assert!(x.lif_from(&short, &one, &one, &LifOptions::default()).unwrap_err().to_string().contains("[4]"));
}
