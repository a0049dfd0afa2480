//! Changing a few members of an object and nothing else: the rest keeps its bytes and its order.

use std::fmt::Write as _;

use bytes::Bytes;

use super::value::{Json, Object, text};

/// What happens to one member of an object.
#[derive(Debug, Clone)]
pub enum Edit<'a> {
    /// Its value becomes this; it is added at the end if it is not there.
    Set(&'a str, Json),
    /// It is added at the beginning if it is not there, and left alone if it is.
    Default(&'a str, Json),
    /// It is taken out.
    Remove(&'a str),
    /// Every member whose name begins with this is taken out.
    RemovePrefix(&'a str),
}

impl Object<'_> {
    /// This object with some members changed.
    #[must_use]
    pub fn edited(self, edits: &[Edit<'_>]) -> Json {
        let source = self.raw();
        let mut members = String::with_capacity(source.len() + 64);
        let mut present = vec![false; edits.len()];
        for span in self.spans() {
            let key = text(source.get(span.key_start + 1..span.key_end - 1).unwrap_or_default());
            let mut value = source.get(span.value_start..span.value_end);
            for (edit, present) in edits.iter().zip(&mut present) {
                match edit {
                    Edit::Set(name, new) if *name == key => {
                        *present = true;
                        value = Some(new.as_str());
                    }
                    Edit::Default(name, _) if *name == key => *present = true,
                    Edit::Remove(name) if *name == key => value = None,
                    Edit::RemovePrefix(prefix) if key.starts_with(prefix) => value = None,
                    _ => {}
                }
            }
            if let Some(value) = value {
                separate(&mut members);
                members.push_str(source.get(span.key_start..span.key_end).unwrap_or_default());
                members.push(':');
                members.push_str(value);
            }
        }
        let mut first = String::new();
        for (edit, present) in edits.iter().zip(present) {
            match edit {
                Edit::Set(name, new) if !present => append(&mut members, name, new),
                Edit::Default(name, new) if !present => append(&mut first, name, new),
                _ => {}
            }
        }
        if !first.is_empty() && !members.is_empty() {
            first.push(',');
        }
        Json::scanned(Bytes::from(format!("{{{first}{members}}}")))
    }
}

fn append(members: &mut String, name: &str, value: &Json) {
    separate(members);
    // `Debug` of a str is not JSON; serde_json's string writer is.
    let _ = write!(members, "{}:{}", Json::of(name).as_str(), value.as_str());
}

fn separate(members: &mut String) {
    if !members.is_empty() {
        members.push(',');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Source;

    fn edit(text: &str, edits: &[Edit<'_>]) -> String {
        let json = Json::parse(text, Source::Client).unwrap();
        json.value().as_object().unwrap().edited(edits).as_str().to_owned()
    }

    #[test]
    fn what_is_not_named_keeps_its_bytes_and_order() {
        let out = edit(
            r#"{"z":1.0,"name":"a__b","x/y":{ "k" : [ 1 ] },"_meta":{}}"#,
            &[Edit::Set("name", Json::of("b")), Edit::Remove("_meta"), Edit::Set("new", Json::of(&7))],
        );
        assert_eq!(out, r#"{"z":1.0,"name":"b","x/y":{ "k" : [ 1 ] },"new":7}"#);
    }

    #[test]
    fn a_default_stands_first_and_only_if_absent() {
        let kind = Json::of("complete");
        assert_eq!(
            edit(r#"{"a":1}"#, &[Edit::Default("resultType", kind.clone())]),
            r#"{"resultType":"complete","a":1}"#
        );
        assert_eq!(edit("{}", &[Edit::Default("resultType", kind.clone())]), r#"{"resultType":"complete"}"#);
        let other = r#"{"resultType":"task"}"#;
        assert_eq!(edit(other, &[Edit::Default("resultType", kind)]), other);
    }

    #[test]
    fn a_prefix_takes_out_all_of_its_members() {
        assert_eq!(edit(r#"{"x/a":1,"y":2,"x/b":3}"#, &[Edit::RemovePrefix("x/")]), r#"{"y":2}"#);
    }

    proptest! {
        #[test]
        fn an_edited_object_is_an_object_that_a_scan_accepts(
            keys in proptest::collection::btree_set("\\PC{0,6}", 0..6), name in "\\PC{0,6}", value in "\\PC{0,6}",
        ) {
            let members: Vec<_> = keys.iter().map(|key| format!("{}:[1, 2]", serde_json::to_string(key).unwrap())).collect();
            let text = format!("{{{}}}", members.join(", "));
            let out = edit(&text, &[Edit::Set(&name, Json::of(&value))]);
            let back = Json::parse(out.clone(), Source::Client).unwrap();
            prop_assert_eq!(back.value().as_object().unwrap().get(&name).unwrap().as_str().unwrap(), value);
            prop_assert_eq!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&out).unwrap().len(), keys.len() + usize::from(!keys.contains(&name)));
        }
    }
}
