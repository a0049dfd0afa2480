//! Reads `[break_glass.NAME]` in `policies/gates.toml`.
//!
//! Decides what an emergency can be: short, asked for by somebody who is named, and agreed to by somebody who is.

use toml::Spanned;

use super::gate::{approvers, name, period};
use crate::config::Mistake;
use crate::config::break_glass::BreakGlassConfig;
use crate::config::gate::Approvers;
use crate::config::keys::gates as keys;
use crate::config::reader::Table;
use crate::limit;

/// All of them, in the order of their names.
pub(super) fn read_all(top: &mut Table<'_, '_>) -> Option<Vec<BreakGlassConfig>> {
    let place = top.place("break_glass");
    let tables = top.named_tables("break_glass", &keys::BREAK_GLASS, name);
    if tables.len() > limit::BREAK_GLASS_KINDS_MAX {
        let most = limit::BREAK_GLASS_KINDS_MAX;
        top.mistake(&place, format!("{} emergencies are too many: at most {most}", tables.len()));
    }
    let mut all: Vec<_> = tables.into_iter().map(|(name, table)| read(table, name)).collect::<Option<_>>()?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Some(all)
}

fn read(mut table: Table<'_, '_>, name: String) -> Option<BreakGlassConfig> {
    let (role, span) = (table.at::<String>("role"), table.span.clone());
    let who = approvers(&mut table, "who");
    let given = approvers(&mut table, "approvers");
    let approvals = table.at::<u32>("approvals");
    let lasts = period(&mut table, "lasts", limit::BREAK_GLASS_FOR_MAX);
    let role: Spanned<String> = role?;
    let bare = role.get_ref().strip_prefix("role:").unwrap_or_default();
    if bare.is_empty() || bare.contains(|letter: char| letter.is_whitespace() || letter == ',') {
        table.mistake(&role.span(), "write the role that it gives, as rules spell it: role = \"role:NAME\"");
    }
    let approvals = approvals?;
    if !(1..=limit::GATE_APPROVALS_MAX).contains(approvals.get_ref()) {
        table.mistake(&approvals.span(), format!("write 1 to {} approvals", limit::GATE_APPROVALS_MAX));
    }
    let (who, given) = (who?, given?);
    if who.contains(&Approvers::Owner) || given.contains(&Approvers::Owner) {
        table
            .mistake(&span, "there is no server whose owner that could be: write user:ISSUER/SUB or group:ISSUER/NAME");
    }
    if who.is_empty() || given.is_empty() {
        table.mistake(&span, format!("`{name}` is for nobody: write who may ask (`who`) and who agrees (`approvers`)"));
    }
    Some(BreakGlassConfig {
        name,
        role: role.into_inner(),
        who,
        approvers: given,
        approvals: approvals.into_inner(),
        lasts: lasts?,
    })
}

/// What nobody could agree to under these files.
pub(super) fn warnings(all: &[BreakGlassConfig], has_admin: bool, file: &str) -> Vec<Mistake> {
    let told = |one: &BreakGlassConfig| {
        let message = format!("nobody can ask for `{}`: there is no [admin] in servers.toml", one.name);
        Mistake::at(file, "", 0, message)
    };
    if has_admin { Vec::new() } else { all.iter().map(told).collect() }
}
