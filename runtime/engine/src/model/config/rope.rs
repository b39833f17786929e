//! Rotary embeddings: which values of a head turn with position, and how fast.

/// A rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopePlan {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Values at the beginning of each head that are turned; even.
    pub rotary_dim: usize,
    /// Which of them turn together.
    pub pairs: Pairs,
    /// How it was stretched over a longer context than it was trained for, if it was.
    pub yarn: Option<Yarn>,
}

/// Which values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Value i and value i + rotary_dim / 2.
    Halves,
    /// Neighbours.
    Neighbours,
}

/// YaRN ([arXiv:2309.00071](https://arxiv.org/abs/2309.00071)): slow turns are stretched, fast ones are left as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Yarn {
    /// How many times longer the context is.
    pub factor: f64,
    /// Tokens of the context that was trained for.
    pub original_context: usize,
    /// Turns within that context from which on nothing is stretched.
    pub beta_fast: f64,
    /// Turns within that context up to which all is stretched.
    pub beta_slow: f64,
    /// Are the bounds between fast and slow rounded to whole dimensions?
    pub truncate: bool,
    /// What cosines and sines are multiplied with.
    pub amplitude: f32,
}

impl RopePlan {
    /// Radians a position, of each pair. Power and inverse are each rounded to f32, as in the implementations that
    /// models are trained with.
    pub fn frequencies(&self) -> Vec<f32> {
        let half = self.rotary_dim / 2;
        let wavelength = |i: usize| {
            let exponent = (2 * i) as f32 / self.rotary_dim as f32;
            self.theta.powf(f64::from(exponent)) as f32
        };
        let wavelengths = (0..half).map(wavelength);
        let Some(yarn) = &self.yarn else { return wavelengths.map(|length| 1.0 / length).collect() };
        let (low, high) = yarn.bounds(self.theta, self.rotary_dim);
        let stretched = |(i, length): (usize, f32)| {
            let kept = 1.0 - ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            let (long, short) = (1.0 / (yarn.factor as f32 * length), 1.0 / length);
            long * (1.0 - kept) + short * kept
        };
        wavelengths.enumerate().map(stretched).collect()
    }

    /// What cosines and sines are multiplied with.
    pub fn amplitude(&self) -> f32 {
        self.yarn.as_ref().map_or(1.0, |yarn| yarn.amplitude)
    }
}

impl Yarn {
    /// Pairs before the first bound are left as they are, those from the second on are stretched whole.
    fn bounds(&self, theta: f64, rotary_dim: usize) -> (f32, f32) {
        let dimension = |turns: f64| {
            let wavelength = self.original_context as f64 / (turns * 2.0 * std::f64::consts::PI);
            rotary_dim as f64 * wavelength.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (dimension(self.beta_fast), dimension(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
        // Apart, so that nothing is divided by 0.
        (low as f32, if low == high { high + 1e-3 } else { high } as f32)
    }
}
