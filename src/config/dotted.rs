//! Tables whose keys are dotted names of somebody else's, such as librdkafka's properties.

use toml::de::DeValue;

use super::reader::{Field, Table};

impl<'d> Field<'d> {
    /// Every value at and under this one, as text, by its dotted name: `a.b = 1` and `"a.b" = 1` mean the same.
    pub(super) fn flattened(&self) -> Vec<(String, String, Field<'d>)> {
        let mut found = Vec::new();
        if let Some(table) = self.table() {
            flatten(&table, "", &mut found);
        }
        found
    }
}

fn flatten<'d>(table: &Table<'d>, prefix: &str, found: &mut Vec<(String, String, Field<'d>)>) {
    for (name, field) in table.entries() {
        let name = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        let value = match field.value {
            DeValue::Table(_) => {
                if let Some(inner) = field.table() {
                    flatten(&inner, &name, found);
                }
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => number.to_string(),
                Err(_) => {
                    field.refuse("is too large a number");
                    continue;
                }
            },
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) => {
                field.refuse("is not allowed; write a string, a number or a boolean");
                continue;
            }
        };
        found.push((name, value, field));
    }
}
