//! Instructions of each part of the path, counted by valgrind through gungraun: the same on every machine with the same
//! compiler. `cargo bench --package harborseal-bench --bench instructions` (needs valgrind and gungraun-runner; README.md).
//!
//! Sealing stands apart: valgrind knows no VAES, so what it counts there is not what runs on a newer CPU.

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use harborseal_bench::parts::{Admit, Append, BURSTS, Pack, Parse, Seal, Shape};
use harborseal_segment::cipher::Backend;

fn pack_of(shape: Shape) -> Pack {
    Pack::new(shape).expect("memory for the pool")
}

fn append_of() -> Append {
    Append::new().expect("memory for the pool")
}

#[library_benchmark]
#[bench::video(args = (Shape::VIDEO), setup = Parse::new)]
#[bench::audio(args = (Shape::AUDIO), setup = Parse::new)]
fn parse(mut step: Parse) -> Parse {
    (0..BURSTS).for_each(|_| {
        black_box(step.run());
    });
    step
}

#[library_benchmark]
#[bench::video(args = (Shape::VIDEO), setup = Admit::new)]
#[bench::audio(args = (Shape::AUDIO), setup = Admit::new)]
fn admit(mut step: Admit) -> Admit {
    (0..BURSTS).for_each(|_| step.run());
    step
}

#[library_benchmark]
#[bench::video(args = (Shape::VIDEO), setup = pack_of)]
#[bench::audio(args = (Shape::AUDIO), setup = pack_of)]
fn pack(mut step: Pack) -> Pack {
    (0..BURSTS).for_each(|_| step.run());
    step
}

#[library_benchmark]
#[bench::chunks(setup = append_of)]
fn append(mut step: Append) -> Append {
    step.run();
    step
}

#[library_benchmark]
#[bench::chunk(args = (16, Backend::ALL[0]), setup = Seal::new)]
fn seal(mut step: Seal) -> Seal {
    black_box(step.run());
    step
}

library_benchmark_group!(name = path; benchmarks = parse, admit, pack, append);
library_benchmark_group!(name = sealing; benchmarks = seal);
main!(library_benchmark_groups = path, sealing);
