//! Sums in order, one value after the other.

pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `w · x` of `w`, `[outputs, x.len()]`.
pub fn matvec(w: &[f32], x: &[f32]) -> Vec<f32> {
    assert!(w.len().is_multiple_of(x.len()), "w is [outputs, inputs]");
    w.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

pub fn add(out: &mut [f32], x: &[f32], factor: f32) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += factor * x);
}

pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let factor = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * factor * w).collect()
}

pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}
