//! The camera model: how large each frame of a loop is.
//!
//! A group of pictures is one I-frame and `gop - 1` P-frames. The sizes of each kind are log-normal around their mean, and
//! the two means follow from the rate and the ratio between them. Invariants: a loop's bytes are the rate's to within a
//! byte per frame, I-frames are on average exactly `i_to_p` times as large as P-frames (as far as the smallest frame
//! allows), and the same model and seed give the same sizes.
//!
//! The distribution is a model, not a recording: no trace of real cameras that may be redistributed was found.

use crate::camera::mix;

/// What decides the sizes of one stream's frames.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameModel {
    /// RTP packets with their headers; 1 Mb = 10^6 bits.
    pub mbps: f64,
    pub fps: f64,
    /// Frames from one key frame to the next.
    pub gop: u32,
    /// Mean I-frame over mean P-frame.
    pub i_to_p: f64,
    /// Standard deviation of a frame size's logarithm; 0: all of a kind are equally large.
    pub sigma: f64,
}

/// A loop lasts at least this long and has at least two groups of pictures, so that frames do not repeat too soon.
const LOOP_SECONDS: f64 = 4.0;
/// And it has at least this many bytes: what rounding to whole filler sizes leaves is then below 1 in 1,000.
const LOOP_BYTES: f64 = 128.0 * 1024.0;

impl FrameModel {
    pub fn mean_bytes(&self) -> f64 {
        self.mbps * 1e6 / 8.0 / self.fps
    }

    /// Mean size of a P-frame: `gop` frames weigh as much as `gop - 1 + i_to_p` of them.
    pub fn mean_p_bytes(&self) -> f64 {
        self.mean_bytes() * f64::from(self.gop) / (f64::from(self.gop) - 1.0 + self.i_to_p)
    }

    pub fn gop_seconds(&self) -> f64 {
        f64::from(self.gop) / self.fps
    }

    /// The same camera by night: the sensor's noise costs P-frames more than I-frames, so their ratio shrinks towards 1
    /// by `noise` (0 to 1), and sizes vary more by as much; the rate is `rate` times the day's.
    pub fn by_night(&self, rate: f64, noise: f64) -> FrameModel {
        FrameModel {
            mbps: self.mbps * rate,
            i_to_p: 1.0 + (self.i_to_p - 1.0) * (1.0 - noise),
            sigma: self.sigma * (1.0 + noise),
            ..*self
        }
    }

    fn gops_per_loop(&self) -> u32 {
        let by_time = LOOP_SECONDS / self.gop_seconds();
        let by_bytes = LOOP_BYTES / (self.mean_bytes() * f64::from(self.gop));
        // A year of frames at most: what is asked for beyond it no loop can hold anyway.
        by_time.max(by_bytes).ceil().clamp(2.0, 1e6) as u32
    }

    /// Sizes in bytes of the frames of one loop, none below `least`; every `gop`th is a key frame.
    pub fn sizes(&self, seed: u64, least: f64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let frames = (self.gops_per_loop() * self.gop) as usize;
        let is_key = |at: usize| at.is_multiple_of(self.gop as usize);
        let mut sizes: Vec<f64> = (0..frames).map(|_| random.log_normal(self.sigma)).collect();
        let mean_p = self.mean_p_bytes();
        for (key, mean) in [(true, mean_p * self.i_to_p), (false, mean_p)] {
            let mut of_kind: Vec<&mut f64> = sizes
                .iter_mut()
                .enumerate()
                .filter_map(|(at, size)| (is_key(at) == key).then_some(size))
                .collect();
            fit(&mut of_kind, mean, least.min(mean));
        }
        sizes
    }
}

/// Scales sizes so that their mean is `mean`, none below `least`: what lifting the small ones costs the larger ones pay.
fn fit(sizes: &mut [&mut f64], mean: f64, least: f64) {
    let total = mean * sizes.len() as f64;
    let (mut lifted, mut free) = (0, sizes.iter().map(|size| **size).sum::<f64>());
    // What is at the least stays there, and each round but the last lifts one more: it ends.
    while free > 0.0 {
        let factor = (total - lifted as f64 * least) / free;
        for size in sizes.iter_mut().filter(|size| ***size != least) {
            **size = (**size * factor).max(least);
        }
        let at_least = sizes.iter().filter(|size| ***size == least);
        let now = at_least.count();
        if now == lifted {
            break;
        }
        lifted = now;
        free = sizes
            .iter()
            .filter(|size| ***size != least)
            .map(|size| **size)
            .sum();
    }
}

/// Numbers that a seed decides, the same on every machine and in every version: SplitMix64.
pub(crate) struct Random {
    counter: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { counter: mix(seed) }
    }

    pub fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.counter)
    }

    /// 0 (included) to 1 (not included), in steps of 2^-53.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.share(), self.share());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Mean 1: exp(σz − σ²/2).
    fn log_normal(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal() - sigma * sigma / 2.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: FrameModel = FrameModel {
        mbps: 2.0,
        fps: 25.0,
        gop: 50,
        i_to_p: 8.0,
        sigma: 0.4,
    };

    fn kinds(model: &FrameModel, sizes: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut i, mut p) = (Vec::new(), Vec::new());
        for (at, &size) in sizes.iter().enumerate() {
            match at % model.gop as usize {
                0 => i.push(size),
                _ => p.push(size),
            }
        }
        (i, p)
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn the_mean_rate_and_the_ratio_of_i_to_p_frames_are_exact() {
        for model in [
            MODEL,
            FrameModel { gop: 1, ..MODEL },
            FrameModel {
                mbps: 0.1,
                gop: 250,
                fps: 25.0,
                i_to_p: 20.0,
                sigma: 0.8,
            },
            FrameModel { sigma: 0.0, ..MODEL },
        ] {
            let sizes = model.sizes(3, 80.0);
            let rate = mean(&sizes) * 8.0 * model.fps / 1e6;
            assert!((rate / model.mbps - 1.0).abs() < 1e-9, "{model:?}: {rate}");
            let (i, p) = kinds(&model, &sizes);
            if !p.is_empty() {
                let ratio = mean(&i) / mean(&p);
                assert!((ratio / model.i_to_p - 1.0).abs() < 1e-9, "{model:?}: {ratio}");
            }
            assert!(sizes.iter().all(|&size| size >= 80.0 - 1e-9));
        }
    }

    #[test]
    fn sizes_are_log_normal_with_the_deviation_asked_for() {
        let all: Vec<f64> = (0..40)
            .flat_map(|seed| kinds(&MODEL, &MODEL.sizes(seed, 80.0)).1)
            .collect();
        let logs: Vec<f64> = all.iter().map(|size| size.ln()).collect();
        let middle = mean(&logs);
        let moment = |power| {
            mean(
                &logs
                    .iter()
                    .map(|log| (log - middle).powi(power))
                    .collect::<Vec<_>>(),
            )
        };
        let sigma = moment(2).sqrt();
        assert!(
            (sigma - 0.4).abs() < 0.01,
            "deviation {sigma} of {} frames",
            all.len()
        );
        let (skew, kurtosis) = (moment(3) / sigma.powi(3), moment(4) / sigma.powi(4));
        assert!(skew.abs() < 0.15, "a normal distribution leans nowhere: {skew}");
        assert!((kurtosis - 3.0).abs() < 0.3, "nor has it other tails: {kurtosis}");
    }

    #[test]
    fn a_seed_decides_every_size() {
        assert_eq!(MODEL.sizes(5, 80.0), MODEL.sizes(5, 80.0));
        assert_ne!(MODEL.sizes(5, 80.0), MODEL.sizes(6, 80.0));
    }

    #[test]
    fn by_night_noise_levels_the_frames() {
        let night = MODEL.by_night(0.5, 0.5);
        assert_eq!((night.mbps, night.i_to_p), (1.0, 4.5));
        assert!((night.sigma - 0.6).abs() < 1e-9);
    }
}
