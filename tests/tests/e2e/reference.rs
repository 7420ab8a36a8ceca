//! The reference pages of sources and sinks: made of their types and of an example each, and held to them.
//!
//! `WAYPOST_WRITE_REFERENCE=1 cargo test -p waypost-tests --test e2e reference` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};
use waypost_tests::binary::root;

const REFERENCE: &str = "#/$defs/";

/// A page in the making.
struct Page {
    text: String,
    definitions: Map<String, Value>,
    told: BTreeSet<String>,
    to_tell: Vec<String>,
}

impl Page {
    /// What a schema is called in a table; what it refers to is told later on the page.
    fn type_of(&mut self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix(REFERENCE)) {
            let name = name.to_owned();
            let definition = self.definitions.get(&name).cloned().unwrap_or_default();
            if definition["oneOf"].is_array() || definition["properties"].is_object() {
                if self.told.insert(name.clone()) {
                    self.to_tell.push(name.clone());
                }
                return format!("[{name}](#{})", name.to_lowercase());
            }
            return match name.as_str() {
                "Template" => "template".to_owned(),
                "RequestTemplate" => "request template".to_owned(),
                _ => self.type_of(&definition),
            };
        }
        if let Some(any) = schema["anyOf"].as_array() {
            let names: Vec<_> =
                any.iter().filter(|one| one["type"] != "null").map(|one| self.type_of(one)).collect();
            return names.join(" or ");
        }
        match &schema["type"] {
            Value::String(name) if name == "array" => format!("list of {}", self.type_of(&schema["items"])),
            Value::String(name) => name.clone(),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
                names.collect::<Vec<_>>().join(" or ")
            }
            _ => "any".to_owned(),
        }
    }

    fn fields(&mut self, schema: &Value) {
        let Some(fields) = schema["properties"].as_object() else { return };
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
        self.text.push_str("| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        for (name, field) in fields {
            let default = match &field["default"] {
                _ if required.iter().any(|one| *one == name) => "required".to_owned(),
                Value::Null => String::new(),
                Value::Array(items) if items.is_empty() => String::new(),
                default => format!("`{}`", default.as_str().map_or(default.to_string(), str::to_owned)),
            };
            let meaning = line(&field["description"]).replace('|', "\\|");
            let kind = self.type_of(field);
            writeln!(self.text, "| `{name}` | {kind} | {default} | {meaning} |").unwrap();
        }
    }

    fn definition(&mut self, name: &str) {
        let definition = self.definitions.get(name).cloned().unwrap_or_default();
        write!(self.text, "\n## {name}\n\n{}\n\n", line(&definition["description"])).unwrap();
        self.fields(&definition);
        if let Some(values) = definition["oneOf"].as_array() {
            self.text.push_str("| Value | Meaning |\n|---|---|\n");
            for value in values {
                let meaning = line(&value["description"]).replace('|', "\\|");
                if let Some(text) = value["const"].as_str() {
                    writeln!(self.text, "| `{text}` | {meaning} |").unwrap();
                } else if let Some(fields) = value["properties"].as_object() {
                    for (field, schema) in fields {
                        let kind = self.type_of(schema);
                        writeln!(self.text, "| `{field}: ...` ({kind}) | {meaning} |").unwrap();
                    }
                }
            }
        }
    }
}

fn line(text: &Value) -> String {
    text.as_str()
        .unwrap_or_default()
        .split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
        .replace("  ", "\n\n")
}

fn page(kind: &str, name: &str, schema: fn(&mut SchemaGenerator) -> Schema) -> String {
    let mut generator = SchemaGenerator::default();
    let schema = schema(&mut generator).to_value();
    let mut page = Page {
        text: String::new(),
        definitions: generator.take_definitions(true),
        told: BTreeSet::new(),
        to_tell: Vec::new(),
    };
    let schema = match schema["$ref"].as_str().and_then(|path| path.strip_prefix(REFERENCE)) {
        Some(name) => page.definitions.get(name).cloned().unwrap_or_default(),
        None => schema,
    };
    let description = schema["description"].as_str().unwrap_or_default();
    write!(page.text, "# {kind} `{name}`\n\n{description}\n\n## Settings\n\nUnder `spec.{name}`.\n\n")
        .unwrap();
    page.fields(&schema);
    while !page.to_tell.is_empty() {
        let name = page.to_tell.remove(0);
        page.definition(&name);
    }
    if page.text.contains("| template |") {
        page.text.push_str(
            "\nA template is a text with places that the event fills in: `${type}` is an attribute, `${subject|none}` one with \
             a text for events without it, `${time:%Y.%m.%d}` the time in UTC, `${$.order.id}` a place in the data; `$${` \
             is the text itself. An event that lacks what a template needs becomes a dead letter.\n",
        );
    }
    if page.text.contains("| request template |") {
        page.text.push_str(
            "\nA request template is a text with places that the request fills in: `${header.x-event}` is a header, \
             `${query.tenant}` a parameter of the query, `${path}` what follows the URL of the source and `${path.0}` one \
             segment of it, `${method}` the method, `${$.order.id}` a place in a body that is JSON or a form; \
             `${header.x-event|none}` has a text for requests without it; `$${` is the text itself.\n",
        );
    }
    let example = root().join(format!("deploy/examples/{}-{name}.yaml", kind.to_lowercase()));
    let example = std::fs::read_to_string(&example)
        .unwrap_or_else(|error| panic!("{name} has no example {}: {error}", example.display()));
    write!(page.text, "\n## Example\n\n```yaml\n{example}```\n").unwrap();
    page.text
}

#[test]
fn every_source_and_sink_has_a_page_that_is_made_of_its_type_and_an_example() {
    let sources = waypost_sources::SOURCES.iter().map(|row| ("Source", "sources", row.name, row.schema));
    let sinks = waypost_sinks::SINKS.iter().map(|row| ("Sink", "sinks", row.name, row.schema));
    for (kind, folder, name, schema) in sources.chain(sinks) {
        let path = root().join(format!("docs/reference/{folder}/{name}.md"));
        let made = page(kind, name, schema);
        if std::env::var_os("WAYPOST_WRITE_REFERENCE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, made, "write {} anew: see the head of this file", path.display());
    }
}
