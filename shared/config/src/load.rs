//! Loads settings from their sources in order of precedence, and reports errors with their place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::names::{defaults, join, leaves, nearest};
use crate::{ConfigError, Settings};

/// The command line's options about settings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// `--config`: the file; the default is that in `KINDRED_CONFIG`, or `kindred.toml` in the working directory if it exists.
    pub config: Option<PathBuf>,
    /// `--set name=value`, in the order given.
    pub set: Vec<String>,
}

/// The settings and their origins.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The settings, checked.
    pub settings: Settings,
    /// Dotted names that the user set, with the value that counts: what a data directory that pins others refuses.
    pub explicit: BTreeMap<String, Value>,
    /// Where each of them was set: `kindred.toml line 12`, `--set …`.
    pub origins: BTreeMap<String, String>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

const PREFIX: &str = "KINDRED_";
const FILE_VARIABLE: &str = "KINDRED_CONFIG";
const FILE_NAME: &str = "kindred.toml";

/// Loads the settings from the command line, this process's environment and its working directory.
///
/// # Errors
/// [`ConfigError`], with the place of the error.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_from(sources, std::env::vars_os(), Path::new(""))
}

/// As [`load`], with the environment and the working directory given.
///
/// # Errors
/// As [`load`].
pub fn load_from(
    sources: &Sources,
    environment: impl Iterator<Item = (OsString, OsString)>,
    working_directory: &Path,
) -> Result<Loaded, ConfigError> {
    // A variable's name that is not UTF-8 is not ours; a value that is not is refused below, by its name.
    let variables: BTreeMap<String, OsString> =
        environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    let mut layers = Vec::new();
    let named = sources.config.clone().or_else(|| variables.get(FILE_VARIABLE).map(PathBuf::from));
    let usual = working_directory.join(FILE_NAME);
    let file = named.or_else(|| usual.is_file().then_some(usual));
    if let Some(path) = &file {
        layers.push(Layer::file(path)?);
    }
    for (name, value) in &variables {
        layers.extend(Layer::variable(name, value)?);
    }
    for set in &sources.set {
        layers.push(Layer::set(set)?);
    }

    let known = defaults();
    let (mut explicit, mut origins) = (BTreeMap::new(), BTreeMap::new());
    let mut merged = Table::new();
    for layer in layers {
        layer.check_names(&known)?;
        for (name, value) in leaves(&layer.tree) {
            origins.insert(name.clone(), layer.origin_of(&name));
            explicit.insert(name, value);
        }
        merge(&mut merged, layer.tree);
    }
    let of_semantics = |name: &str| Some((name.to_owned(), merged.remove(name)?));
    let semantics = ["shop", "inputs", "views", "program"].into_iter().filter_map(of_semantics).collect();
    let settings = Settings { semantics: extract(semantics, &origins)?, ..extract(merged, &origins)? };
    settings.check().map_err(|reason| {
        let set = origins.iter().find(|(name, _)| reason.contains(name.as_str()));
        ConfigError::Invalid { origin: set.map(|(_, origin)| origin.clone()), reason }
    })?;
    Ok(Loaded { settings, explicit, origins, file })
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn extract<T: DeserializeOwned>(tables: Table, origins: &BTreeMap<String, String>) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(tables).map_err(|error| {
        let name = error.path().to_string();
        let origin = nearest_above(origins, &name).cloned();
        ConfigError::Invalid { reason: format!("{name}: {}", error.inner().message()), origin }
    })
}

/// The origin of `name`, or of the setting that contains it.
fn nearest_above<'a>(origins: &'a BTreeMap<String, String>, mut name: &str) -> Option<&'a String> {
    loop {
        if let Some(origin) = origins.get(name) {
            return Some(origin);
        }
        name = name.rsplit_once(['.', '['])?.0;
    }
}

/// Tables that accept any name.
const OPEN: &[&str] = &["log.kafka.properties"];
/// Settings whose value may be a table.
const VALUES: &[&str] = &["store.cql.replication"];

/// Splits a name into an open table and the name in it, which may have dots.
fn split_open(name: &str) -> (&str, Option<&str>) {
    let open = OPEN.iter().find_map(|open| Some((*open, name.strip_prefix(open)?.strip_prefix('.')?)));
    open.map_or((name, None), |(table, rest)| (table, Some(rest)))
}

/// Whether a value may be a secret, which is in no message and no output.
fn is_secret(name: &str) -> bool {
    name.contains("password") || split_open(name).1.is_some()
}

/// The settings of one source.
struct Layer {
    /// For messages.
    origin: String,
    tree: Table,
    /// The line of each name, for a file.
    lines: BTreeMap<String, usize>,
}

impl Layer {
    fn file(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("could not be read: {error}")))?;
        let tree = toml::from_str(&text).map_err(|error| wrong(format!("is not TOML: {}", error.to_string().trim_end())))?;
        let mut lines = BTreeMap::new();
        // NB: both parsers are of one crate and accept the same.
        if let Ok(document) = toml_edit::ImDocument::parse(text.as_str()) {
            note_lines("", document.as_table(), &text, &mut lines);
        }
        Ok(Self { origin: path.display().to_string(), tree, lines })
    }

    /// Parses `KINDRED_VIEWS__ALSO_BOUGHT__WINDOW`. Every setting is in a table, so its variable has a double underscore; others
    /// with the prefix are ignored (`KINDRED_CONFIG`, or an orchestrator's for a service named `kindred`), unless one underscore
    /// was written for two.
    fn variable(name: &str, value: &OsString) -> Result<Option<Self>, ConfigError> {
        let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
        let origin = format!("environment variable {name}");
        let setting = rest.to_lowercase().replace("__", ".");
        if !setting.contains('.') {
            return match defaults().into_keys().find(|known| known.replace('.', "_") == setting) {
                Some(known) => Err(ConfigError::Unknown {
                    name: setting,
                    origin,
                    nearest: format!("{PREFIX}{}", known.to_uppercase().replace('.', "__")),
                }),
                None => Ok(None),
            };
        }
        let Some(value) = value.to_str() else {
            return Err(ConfigError::Invalid { reason: format!("{setting} is not UTF-8"), origin: Some(origin) });
        };
        Ok(Some(Self::one(origin, &setting, value)))
    }

    fn set(set: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::Set(set.to_owned());
        let (name, value) = set.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        if name.is_empty() || name.split('.').any(str::is_empty) {
            return Err(wrong());
        }
        let origin = if is_secret(name) { format!("--set {name}=…") } else { format!("--set {set}") };
        Ok(Self::one(origin, name, value.trim()))
    }

    /// A layer of one setting, with its value as text.
    fn one(origin: String, name: &str, text: &str) -> Self {
        let (table, rest) = split_open(name);
        let is_text = rest.is_some() || defaults().get(name).is_some_and(Value::is_str);
        let mut value = parse(text).filter(|value| !is_text || value.is_str()).unwrap_or_else(|| Value::String(text.to_owned()));
        let mut tree = Table::new();
        for (n, key) in rest.into_iter().chain(table.rsplit('.')).enumerate() {
            if n > 0 {
                value = Value::Table(std::mem::take(&mut tree));
            }
            tree.insert(key.to_owned(), value.clone());
        }
        Self { origin, tree, lines: BTreeMap::new() }
    }

    /// The origin of a name of this layer.
    fn origin_of(&self, name: &str) -> String {
        match self.lines.get(name) {
            Some(line) => format!("{} line {line}", self.origin),
            None => self.origin.clone(),
        }
    }

    /// Fails on the first unknown name.
    fn check_names(&self, known: &BTreeMap<String, Value>) -> Result<(), ConfigError> {
        self.check_table("", &self.tree, known)
    }

    fn check_table(&self, above: &str, table: &Table, known: &BTreeMap<String, Value>) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name = join(above, key);
            if known.contains_key(&name) && (!value.is_table() || VALUES.contains(&name.as_str())) {
                continue;
            }
            if OPEN.contains(&name.as_str()) && value.is_table() {
                continue;
            }
            let below = format!("{name}.");
            let is_table = known.keys().any(|setting| setting.starts_with(&below));
            match value {
                Value::Table(table) if is_table => self.check_table(&name, table, known)?,
                _ if is_table => {
                    let example = known.keys().find(|setting| setting.starts_with(&below)).expect("one was found");
                    let reason = format!("{name} is a table of settings, like {example}; it takes no value itself");
                    return Err(ConfigError::Invalid { origin: Some(self.origin_of(&name)), reason });
                }
                _ => {
                    // For an unknown table, its first setting best shows what was meant.
                    let mut one = Table::new();
                    one.insert(key.clone(), value.clone());
                    let meant = leaves(&one).into_keys().next().map_or_else(|| name.clone(), |leaf| join(above, &leaf));
                    return Err(ConfigError::Unknown { origin: self.origin_of(&name), nearest: nearest(&meant), name: meant });
                }
            }
        }
        Ok(())
    }
}

/// A text as a TOML value, if it is one.
fn parse(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    let value = table.remove("value");
    value.filter(|_| table.is_empty())
}

fn note_lines(above: &str, table: &dyn toml_edit::TableLike, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, item) in table.iter() {
        let name = join(above, key);
        // A table header spans its first word only; dotted and inline keys have their own spans.
        let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
        if let Some(span) = span {
            lines.insert(name.clone(), text[..span.start].matches('\n').count() + 1);
        }
        if let Some(table) = item.as_table_like() {
            note_lines(&name, table, text, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EXAMPLE;

    struct Case {
        directory: tempfile::TempDir,
        sources: Sources,
        variables: Vec<(OsString, OsString)>,
    }

    impl Case {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap(), sources: Sources::default(), variables: Vec::new() }
        }
        fn file(self, text: &str) -> Self {
            std::fs::write(self.directory.path().join(FILE_NAME), text).unwrap();
            self
        }
        fn variable(mut self, name: &str, value: &str) -> Self {
            self.variables.push((name.into(), value.into()));
            self
        }
        fn set(mut self, set: &str) -> Self {
            self.sources.set.push(set.to_owned());
            self
        }
        fn load(&self) -> Result<Loaded, ConfigError> {
            load_from(&self.sources, self.variables.iter().cloned(), self.directory.path())
        }
        #[track_caller]
        fn fails_with(&self, parts: &[&str]) {
            let error = self.load().expect_err("it was accepted").to_string();
            for part in parts {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
        }
    }

    /// If this failed, the documented settings file would be wrong.
    #[test]
    fn the_documented_file_names_every_setting_with_its_default() {
        let documented: Table = toml::from_str(EXAMPLE).unwrap();
        let documented = leaves(&documented);
        for (name, default) in defaults() {
            assert_eq!(documented.get(&name), Some(&default), "{name} in deploy/kindred.toml");
        }
        assert_eq!(documented.len(), defaults().len(), "deploy/kindred.toml names something that is no setting");
        assert_eq!(Case::new().file(EXAMPLE).load().unwrap().settings, Settings::default());
    }

    #[test]
    fn services_are_named_together_and_secrets_are_not_shown() {
        let case = Case::new()
            .file("[log]\nkind = \"kafka\"\n[log.kafka.properties]\n\"sasl.username\" = \"shop\"\n[store.cql]\nreplication = { north = 3 }\n")
            .variable("KINDRED_STORE__CQL__PASSWORD", "geheim1")
            .set("store.kind=cql")
            .set("store.cql.user=shop")
            .set("log.kafka.properties.sasl.password=geheim2");
        let loaded = case.load().unwrap();
        assert!(loaded.settings.on_services());
        let kafka = &loaded.settings.log.kafka;
        assert_eq!(kafka.properties["sasl.username"], "shop");
        assert_eq!(kafka.properties["sasl.password"], "geheim2");
        let cql = &loaded.settings.store.cql;
        assert_eq!(
            (cql.user.as_deref(), cql.password.as_deref(), cql.datacenter.as_deref()),
            (Some("shop"), Some("geheim1"), None)
        );
        let shown = format!("{:?} {:?} {}", loaded.settings, loaded.origins, loaded.settings.to_toml());
        assert!(!shown.contains("geheim"), "{shown}");

        Case::new().set("log.kind=kafka").fails_with(&["log.kind is \"kafka\"", "store.kind is \"embedded\"", "store.kind=cql"]);
        Case::new().set("store.kind=cql").fails_with(&["store.kind is \"cql\"", "log.kind=kafka"]);
        Case::new().set("cluster.process=1").fails_with(&["cluster.process is 1"]);
        Case::new().set("store.cql.keyspac=x").fails_with(&["did you mean store.cql.keyspace?"]);
        Case::new().set("store.cql.batch_rows=0").fails_with(&["store.cql.batch_rows is 0", "--set store.cql.batch_rows=0"]);
        Case::new().set("log.kafka.prefix=a/b").fails_with(&["log.kafka.prefix"]);
        let set = "store.cql.password=geheim3";
        Case::new().set(set).set("views.also_bought.window=0").fails_with(&["views.also_bought.window"]);
        let error = Case::new().set(set).load().unwrap_err().to_string();
        assert!(error.contains("user and password") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn the_example_of_a_revision_in_the_documented_file_is_one() {
        let commented = EXAMPLE.split("As a table of its own:").nth(1).unwrap();
        let revision: String = commented
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('#'))
            .map(|line| format!("{}\n", line.trim_start_matches('#')))
            .collect();
        let loaded = Case::new().file(&revision).load().unwrap();
        assert_eq!(loaded.settings.semantics.program.revisions.len(), 1);
        assert_eq!(loaded.settings.semantics.program.revisions[0].effective_from, "2026-11-01");
    }

    #[test]
    fn later_sources_decide_and_what_was_set_is_known() {
        let case = Case::new()
            .file("[views.also_bought]\nwindow = 1\ntop = 2\nmin_support = 3\n[telemetry]\nlog = \"warn\"\n")
            .variable("KINDRED_VIEWS__ALSO_BOUGHT__TOP", "20")
            .variable("KINDRED_VIEWS__ALSO_BOUGHT__MIN_SUPPORT", "30")
            .variable("KINDRED_SHOP__CURRENCY", "USD")
            .variable("KINDRED_CONFIGURATOR", "not ours")
            .variable("KINDRED_PORT_8080_TCP", "tcp://10.0.0.1:8080")
            .set("views.also_bought.min_support=300")
            .set("views.also_bought.min_support=301");
        let loaded = case.load().unwrap();
        let also_bought = &loaded.settings.semantics.views.also_bought;
        assert_eq!((also_bought.window, also_bought.top, also_bought.min_support), (1, 20, 301));
        assert_eq!(loaded.settings.semantics.shop.currency, "USD");
        assert_eq!(loaded.settings.telemetry.log, "warn");
        assert_eq!(loaded.settings.pipeline, crate::Pipeline::default());
        let explicit: Vec<_> = loaded.explicit.keys().map(String::as_str).collect();
        let [window, top, min] = ["window", "top", "min_support"].map(|name| format!("views.also_bought.{name}"));
        assert_eq!(explicit, ["shop.currency", "telemetry.log", &min, &top, &window]);
        assert!(loaded.origins[&window].ends_with("kindred.toml line 2"), "{}", loaded.origins[&window]);
        assert_eq!(loaded.origins[&top], "environment variable KINDRED_VIEWS__ALSO_BOUGHT__TOP");
        assert_eq!(loaded.origins[&min], "--set views.also_bought.min_support=301");
    }

    #[test]
    fn the_file_is_the_named_one_or_the_variable_s_or_the_usual_one() {
        let other = tempfile::tempdir().unwrap();
        let write = |name: &str, workers: u32| {
            let path = other.path().join(name);
            std::fs::write(&path, format!("[pipeline]\nworkers = {workers}\n")).unwrap();
            path
        };
        let (named, in_variable) = (write("named.toml", 2), write("variable.toml", 3));
        let mut case = Case::new().file("[pipeline]\nworkers = 4\n");
        assert_eq!(case.load().unwrap().settings.pipeline.workers, 4);
        case = case.variable(FILE_VARIABLE, in_variable.to_str().unwrap());
        assert_eq!(case.load().unwrap().settings.pipeline.workers, 3);
        case.sources.config = Some(named.clone());
        let loaded = case.load().unwrap();
        assert_eq!((loaded.settings.pipeline.workers, loaded.file), (2, Some(named)));
        case.sources.config = Some(other.path().join("missing.toml"));
        case.fails_with(&["missing.toml", "could not be read"]);
        assert_eq!(Case::new().load().unwrap().settings, Settings::default());
    }

    #[test]
    fn an_unknown_name_says_where_it_stands_and_which_was_meant() {
        Case::new().file("[shop]\ncurrency = \"EUR\"\n\n[views.also_bought]\ntop = 5\nwindwo = 5\n").fails_with(&[
            "there is no setting views.also_bought.windwo",
            "kindred.toml line 6",
            "did you mean views.also_bought.window?",
        ]);
        Case::new().file("veiws = { also_bought = { window = 5 } }").fails_with(&[
            "veiws.also_bought.window",
            "line 1",
            "did you mean views.also_bought.window?",
        ]);
        Case::new().file("[pipelines]\n").fails_with(&["there is no setting pipelines", "line 1"]);
        Case::new().variable("KINDRED_PIPELINE__WORKER", "2").fails_with(&[
            "pipeline.worker ",
            "environment variable KINDRED_PIPELINE__WORKER",
            "did you mean pipeline.workers?",
        ]);
        Case::new().variable("KINDRED_API_LISTEN", "0.0.0.0:1").fails_with(&["did you mean KINDRED_API__LISTEN?"]);
        Case::new().set("workers=2").fails_with(&[
            "there is no setting workers",
            "--set workers=2",
            "did you mean pipeline.workers?",
        ]);
        Case::new().set("views.also_bought.window.size=2").fails_with(&[
            "window.size",
            "--set",
            "did you mean views.also_bought.window?",
        ]);
        Case::new().set("program.revisions=[{effective_from=\"2026-11-01\",earn=1}]").fails_with(&[
            "program.revisions",
            "earn",
            "--set",
        ]);
    }

    #[test]
    fn a_wrong_value_names_setting_and_source() {
        Case::new().file("[views.also_bought]\n\nwindow = \"many\"\n").fails_with(&[
            "views.also_bought.window",
            "\"many\"",
            "kindred.toml line 3",
        ]);
        Case::new().set("pipeline.workers=-1").fails_with(&["pipeline.workers", "-1", "--set pipeline.workers=-1"]);
        Case::new().set("pipeline.workers=0").fails_with(&["pipeline.workers is 0; from 1 to 64", "--set pipeline.workers=0"]);
        Case::new().set("views.also_bought.top=0").fails_with(&["views.also_bought.top is 0; from 1 to 1000", "--set"]);
        Case::new().set("views.also_bought.popularity_damping=0.3").fails_with(&["popularity_damping", "0.25, 0.5"]);
        Case::new().set("views.also_bought.pair_weight=sum").fails_with(&["views.also_bought.pair_weight", "sum", "distance"]);
        Case::new().variable("KINDRED_API__LISTEN", "here").fails_with(&["api.listen", "KINDRED_API__LISTEN"]);
        Case::new().variable("KINDRED_SHOP__CURRENCY", "eur").fails_with(&["shop.currency is \"eur\"", "KINDRED_SHOP__CURRENCY"]);
        Case::new().set("views=3").fails_with(&["views is a table of settings", "--set views=3"]);
        Case::new().set("pipeline").fails_with(&["--set pipeline: name=value is accepted"]);
        Case::new().set("a..b=1").fails_with(&["--set a..b=1"]);
        Case::new().file("[shop\n").fails_with(&["kindred.toml", "is not TOML", "line 1"]);
    }

    #[test]
    fn values_are_toml_or_else_text() {
        let loaded = Case::new()
            .set("data.dir=/tmp/a b")
            .set("telemetry.log = \"debug\"")
            .variable("KINDRED_DATA__DIR", "1")
            .set("views.also_bought.kinds=[\"purchase\"]")
            .set("views.also_bought.support_rounding=1")
            .set("telemetry.format=json")
            .load()
            .unwrap();
        assert_eq!(loaded.settings.data.dir, Path::new("/tmp/a b"));
        assert_eq!(loaded.settings.telemetry.log, "debug");
        assert_eq!(loaded.settings.telemetry.format, crate::LogFormat::Json);
        assert_eq!(loaded.settings.semantics.views.also_bought.support_rounding, 1.0);
        // A directory may be named 1.
        let loaded = Case::new().variable("KINDRED_DATA__DIR", "1").load().unwrap();
        assert_eq!(loaded.settings.data.dir, Path::new("1"));
    }

    #[test]
    fn what_is_shown_loads_back() {
        let changed = Case::new().set("views.also_bought.window=9").set("api.listen=[::1]:80").load().unwrap().settings;
        let shown = Case::new().file(&changed.to_toml()).load().unwrap();
        assert_eq!(shown.settings, changed);
    }
}
