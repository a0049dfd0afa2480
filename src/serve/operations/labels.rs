//! What administrators ask of the running gateway about labels.

use futures_util::future::BoxFuture;

use crate::control::labels::{DeclassificationView, DeclassifiedView, Labelling, LabelsReport, Wish};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::outcome::Stop;

impl Labelling for Gateway {
    fn list<'a>(&'a self, of: Option<&'a str>) -> BoxFuture<'a, Result<LabelsReport, Stop>> {
        Box::pin(self.labels_report(of))
    }

    fn ask<'a>(&'a self, wish: &'a Wish, by: &'a Caller) -> BoxFuture<'a, Result<DeclassificationView, Stop>> {
        Box::pin(self.ask_declassify(wish, by))
    }

    fn confirm<'a>(&'a self, id: &'a str, by: &'a Caller) -> BoxFuture<'a, Result<DeclassifiedView, Stop>> {
        Box::pin(self.confirm_declassify(id, by))
    }

    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DeclassificationView, Stop>> {
        Box::pin(self.withdraw_declassify(id))
    }
}
