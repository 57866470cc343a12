//! Sealing as the engine does it ÷ the sealing library alone: a receiver up to the stage that seals, under the same cameras, that times some
//! of its chunks and, in between, the library on a buffer in its cache (`parts::SealRates` says how).

use harborseal_bench::parts::SealRates;
use serde::Serialize;

use super::{Upto, receiver_run};
use crate::load::{Load, Sent, objections};
use crate::runs::{Site, because};
use crate::sample::median;

/// Fewer would be chance.
const SAMPLES_LEAST: u64 = 20;

#[derive(Clone, Debug, Serialize)]
pub struct Run {
    #[serde(flatten)]
    rates: SealRates,
    fleet: Sent,
    invalid_because: Vec<String>,
}

/// Rates in GB/s and ratios: medians over the valid runs, or over all where there is none.
#[derive(Debug, Serialize)]
pub struct Sealed {
    block_gb_per_s: f64,
    encryption_gb_per_s: f64,
    library_hot_gb_per_s: f64,
    /// A whole block as the engine seals it ÷ the library alone on a hot buffer.
    ratio: Option<f64>,
    /// Only its encryption ÷ the same.
    encryption_ratio: Option<f64>,
    valid: bool,
    runs: Vec<Run>,
}

pub fn run(site: &Site<'_>, load: &Load) -> anyhow::Result<Run> {
    let (fleet, _, taken) = receiver_run(site, load, Upto::Seal, &["--time-sealing"])?;
    let rates = taken.sealing.unwrap_or_default();
    let mut invalid_because = objections(load, &fleet);
    if rates.samples < SAMPLES_LEAST {
        let samples = rates.samples;
        invalid_because.push(format!(
            "{samples} full chunks were timed, {SAMPLES_LEAST} are needed: more --seconds, or a higher rate for each stream"
        ));
    }
    Ok(Run {
        rates,
        fleet,
        invalid_because,
    })
}

impl Run {
    pub fn line(&self) -> String {
        let SealRates {
            samples,
            block,
            encryption,
            library_hot,
        } = self.rates;
        let invalid = because(&self.invalid_because);
        format!(
            "sealing: {block:.2} GB/s, its encryption {encryption:.2}, the library alone {library_hot:.2}; {samples} samples{invalid}"
        )
    }
}

impl Sealed {
    pub fn of(runs: Vec<Run>) -> Sealed {
        let valid: Vec<&Run> = runs.iter().filter(|run| run.invalid_because.is_empty()).collect();
        let used: Vec<&Run> = match valid.is_empty() {
            true => runs.iter().collect(),
            false => valid.clone(),
        };
        let over = |value: fn(&SealRates) -> f64| median(used.iter().map(|run| value(&run.rates)).collect());
        let ratio = |value: fn(&SealRates) -> f64| {
            let known = used.iter().filter(|run| run.rates.library_hot > 0.0);
            let ratios: Vec<f64> = known
                .map(|run| value(&run.rates) / run.rates.library_hot)
                .collect();
            (!ratios.is_empty()).then(|| median(ratios))
        };
        Sealed {
            block_gb_per_s: over(|rates| rates.block),
            encryption_gb_per_s: over(|rates| rates.encryption),
            library_hot_gb_per_s: over(|rates| rates.library_hot),
            ratio: ratio(|rates| rates.block),
            encryption_ratio: ratio(|rates| rates.encryption),
            valid: valid.len() * 2 > runs.len(),
            runs,
        }
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let (Some(ratio), Some(encryption)) = (self.ratio, self.encryption_ratio) else {
            return "sealing 64 KiB: not known, no full chunk was timed\n".to_owned();
        };
        let not = if self.valid { "" } else { " (not valid)" };
        format!(
            "sealing 64 KiB: {:.2} GB/s; the library alone, hot, {:.2}: ratio {ratio:.2}; its encryption alone {encryption:.2}{not}\n",
            self.block_gb_per_s, self.library_hot_gb_per_s
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_each_run_with_itself() {
        let run = |block, library_hot, valid: bool| Run {
            rates: SealRates {
                samples: 100,
                block,
                encryption: block,
                library_hot,
            },
            fleet: Sent::default(),
            invalid_because: if valid { vec![] } else { vec!["late".to_owned()] },
        };
        let sealed = Sealed::of(vec![
            run(8.0, 10.0, true),
            run(4.0, 4.0, true),
            run(1.0, 9.0, false),
        ]);
        assert_eq!(sealed.ratio, Some(0.9));
        assert!(sealed.valid && sealed.line().contains("ratio 0.90"));
        let nothing = Sealed::of(vec![run(0.0, 0.0, false)]);
        assert!(nothing.ratio.is_none() && !nothing.valid);
    }
}
