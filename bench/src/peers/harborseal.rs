//! Harborseal among its peers: the engine as it ships.

use std::net::SocketAddr;

use anyhow::Context;

use super::{Options, Receiving};
use crate::account::{self, Cpu};
use crate::child::Stop;
use crate::lab::{Engine, Lab};
use crate::load::Load;
use crate::machine::Cpus;

pub struct Harborseal {
    engine: Engine,
    stop: Stop,
}

impl Harborseal {
    pub fn start(
        lab: &Lab,
        load: &Load,
        options: &Options,
        cpus: &Cpus,
        stop: &Stop,
    ) -> anyhow::Result<(Harborseal, Vec<SocketAddr>)> {
        let engine = Engine::start(lab, &options.engine, &cpus.engine, load, stop)?;
        let targets = vec![engine.listen];
        let stop = stop.clone();
        Ok((Harborseal { engine, stop }, targets))
    }
}

impl Receiving for Harborseal {
    fn cpu_ns(&mut self) -> anyhow::Result<u64> {
        Ok(Cpu::of_process(self.engine.pid())?.total_ns)
    }

    fn memory_bytes(&mut self) -> anyhow::Result<u64> {
        account::memory_bytes(self.engine.pid())
    }

    fn stop(self: Box<Self>, sent: u64) -> anyhow::Result<u64> {
        let account = self.engine.stop(&self.stop)?;
        let stored = account.ledger["stored"]
            .as_u64()
            .context("the engine's last line has no `stored`")?;
        Ok(sent.saturating_sub(stored))
    }

    fn look_after(&mut self) -> anyhow::Result<()> {
        self.engine.look_after()
    }
}
