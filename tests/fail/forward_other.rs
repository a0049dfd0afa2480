// An entry of something that is no grant opens nothing: anybody can have evidence of their own on the record.

use bailiwick::ids::ServerId;
use bailiwick::outcome::Refusal;
use bailiwick::record::event::Intent;
use bailiwick::record::{Entry, Evidence};
use bailiwick::upstream::Upstreams;

pub struct Mine;

impl Evidence for Mine {
    fn recheck(&self) -> Result<(), Refusal> {
        Ok(())
    }

    fn intent(&self) -> Intent<'_> {
        todo!()
    }

    fn server(&self) -> Option<&ServerId> {
        None
    }
}

pub fn forward(upstreams: &Upstreams, mine: &mut Entry<Mine>) {
    upstreams.forward(mine); //~ E0308 mismatched types
}
