//! Reads the values in `conditions.toml`: texts, numbers, hosts, directories, windows of time.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use toml::Spanned;
use toml::de::DeValue;

use super::arguments::decimal;
use super::clock::{self, Window};
use super::expression::Scalar;
use super::parse::{Reader, Table};
use super::{Truth, place};
use crate::limit::CONDITION_DEPTH_MAX;

impl<'a> Reader<'a> {
    pub(super) fn window(&mut self, value: &'a Spanned<DeValue<'a>>) -> Option<Window> {
        let Some(mut table) = Table::of(value) else {
            self.mistake(value.span(), "time is a table: { zone, days, from, to, after, before }");
            return None;
        };
        let before_mistakes = self.mistakes.len();
        let zone_name = table.take("zone").and_then(|zone| zone.get_ref().as_str()).unwrap_or("").to_owned();
        let zone = TimeZone::get(&zone_name).ok();
        if zone.is_none() {
            self.mistake(
                value.span(),
                format!("`{zone_name}` is not a time zone; write zone = \"Europe/Berlin\" or \"UTC\""),
            );
        }
        let mut days = Vec::new();
        if let Some(value) = table.take("days") {
            for name in self.texts(value, false).unwrap_or_default() {
                match clock::day(&name) {
                    Some(day) => days.push(day),
                    None => self.mistake(
                        value.span(),
                        format!("`{name}` is not a day; write mon, tue, wed, thu, fri, sat or sun"),
                    ),
                }
            }
        }
        let time = |reader: &mut Self, value: Option<&Spanned<DeValue<'_>>>| {
            let value = value?;
            let time = value.get_ref().as_str().and_then(|text| text.parse::<Time>().ok());
            if time.is_none() {
                reader.mistake(value.span(), "write a time of day such as \"08:00\"");
            }
            time
        };
        let (from, to) = (table.take("from"), table.take("to"));
        if from.is_some() != to.is_some() {
            self.mistake(value.span(), "from and to belong together; write both");
        }
        let hours = time(self, from).zip(time(self, to));
        if hours.is_some_and(|(from, to)| from == to) {
            self.mistake(
                value.span(),
                "from and to are the same, so the window is empty; leave both out for the whole day",
            );
        }
        let after = table.take("after").and_then(|value| self.moment(value));
        let before = table.take("before").and_then(|value| self.moment(value));
        for (key, span) in table.rest().map(|(key, span)| (key.to_owned(), span)).collect::<Vec<_>>() {
            self.mistake(span, format!("`{key}` is not part of a time; write zone, days, from, to, after or before"));
        }
        if days.is_empty() && hours.is_none() && after.is_none() && before.is_none() {
            self.mistake(value.span(), "the time has no bound; write days, from and to, after or before");
        }
        (self.mistakes.len() == before_mistakes).then_some(())?;
        Some(Window { zone: zone?, zone_name, days, hours, after, before })
    }

    pub(super) fn moment(&mut self, value: &Spanned<DeValue<'_>>) -> Option<DateTime> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(moment) if moment.offset.is_none() => moment.to_string(),
            _ => String::new(),
        };
        let moment = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0))).ok();
        if moment.is_none() {
            self.mistake(
                value.span(),
                "write a local date or time such as 2026-12-20 or 2026-12-20T18:00:00, without an offset",
            );
        }
        moment
    }

    pub(super) fn path(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let path: Vec<String> = match value.get_ref() {
            DeValue::String(text) => text.split('.').map(str::to_owned).collect(),
            DeValue::Array(_) => self.texts(value, false)?,
            _ => Vec::new(),
        };
        if path.is_empty() || path.iter().any(String::is_empty) || path.len() > CONDITION_DEPTH_MAX {
            self.mistake(
                value.span(),
                "name the argument: \"replicas\", \"spec.size\", or [\"a.b\", \"c\"] where names have dots",
            );
            return None;
        }
        Some(path)
    }

    pub(super) fn texts(&mut self, value: &Spanned<DeValue<'_>>, may_be_empty: bool) -> Option<Vec<String>> {
        let list = match value.get_ref() {
            DeValue::String(text) => Some(vec![text.to_string()]),
            DeValue::Array(list) => list.iter().map(|text| text.get_ref().as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let list: Option<Vec<String>> = list.filter(|list: &Vec<String>| may_be_empty || !list.is_empty());
        if list.is_none() {
            self.mistake(value.span(), "write a text, or a list of texts");
        }
        list
    }

    pub(super) fn directories(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let list = self.texts(value, false)?;
        for directory in &list {
            if place::path_under(directory, &["/".to_owned()]) != Truth::True {
                self.mistake(
                    value.span(),
                    format!("`{directory}` is not a plain absolute directory; write one such as /srv/data"),
                );
            }
        }
        Some(list)
    }

    pub(super) fn hosts(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
        let list = self.texts(value, false)?;
        for host in &list {
            let bare = host.strip_prefix("*.").unwrap_or(host);
            let own = [bare.to_owned()];
            if bare.bytes().any(|byte| byte.is_ascii_uppercase())
                || bare.contains([':', '/'])
                || place::url_host_in(&format!("https://{bare}/"), &own) != Truth::True
            {
                self.mistake(
                    value.span(),
                    format!("`{host}` is not a host; write a lower-case name, or *.NAME for all names below it"),
                );
            }
        }
        Some(list)
    }

    pub(super) fn boolean(&mut self, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistake(value.span(), "write true or false");
        }
        found
    }

    pub(super) fn number(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Decimal> {
        match self.scalar(value)? {
            Scalar::Number(number) => Some(number),
            Scalar::Text(_) | Scalar::Boolean(_) => {
                self.mistake(value.span(), "write a number");
                None
            }
        }
    }

    pub(super) fn size(&mut self, value: &Spanned<DeValue<'_>>) -> Option<usize> {
        let size =
            value.get_ref().as_integer().and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok());
        if size.is_none() {
            self.mistake(value.span(), "write a whole number, 0 or more");
        }
        size
    }

    pub(super) fn scalar(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Scalar> {
        let scalar = match value.get_ref() {
            DeValue::String(text) => Some(Scalar::Text(text.to_string())),
            DeValue::Boolean(value) => Some(Scalar::Boolean(*value)),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| Scalar::Number(number.into()))
            }
            // The text of the number, so that it stays the decimal that was written.
            DeValue::Float(number) => decimal(number.as_str()).map(Scalar::Number),
            _ => None,
        };
        if scalar.is_none() {
            self.mistake(value.span(), "write a text, true, false, a whole number or a decimal of at most 28 digits");
        }
        scalar
    }
}
