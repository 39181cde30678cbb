//! The Delta log of a table: opening, creating, committing, checkpoints.
//!
//! The library retries a commit on top of another writer's; here it must not, because the rows of a commit only fit
//! after the rows that its writer saw. So a commit is tried once, and after any error the log is reread before anything
//! else is done.

use std::collections::HashMap;
use std::time::Duration;

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, MetadataExt, Protocol, StructType, Transaction};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::DeltaOperation;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, checkpoints};
use futures::TryStreamExt;
use serde_json::Value;
use windrow_core::{Error, ErrorKind, Result};

use crate::file_entry::{self, FileEntry};
use crate::spec::TableSpec;
use crate::storage::Storage;
use crate::{damage, delta_schema, failure};

/// The table property with the exact Arrow schema.
const SCHEMA_KEY: &str = "windrow.schema";
/// The table property with the owner.
const OWNER_KEY: &str = "windrow.owner";
/// The table property with the fingerprint of the query.
const FINGERPRINT_KEY: &str = "windrow.fingerprint";

/// Old entries are deleted this often within their retention.
const CLEANINGS: u32 = 8;

/// The log of one table, as of the last known commit.
pub(crate) struct DeltaLog {
    table: DeltaTable,
    place: String,
    app: String,
    /// How long old entries are retained.
    retention: Duration,
    /// When old entries were last deleted, in µs since the Unix epoch.
    cleaned_micros: Option<i64>,
}

/// The changes of one commit.
pub(crate) struct Commit {
    /// Files that are added and removed.
    pub(crate) actions: Vec<Action>,
    /// The transaction version, of an append.
    pub(crate) txn_version: Option<i64>,
    /// The kind of change.
    pub(crate) operation: DeltaOperation,
    /// Metadata recorded in the log.
    pub(crate) notes: Option<Value>,
}

impl DeltaLog {
    /// Opens the log in `storage`, or creates it.
    pub(crate) async fn open(
        storage: &Storage,
        spec: &TableSpec,
        retention: Duration,
    ) -> Result<Self> {
        let store: LogStoreRef = default_logstore(
            storage.here(),
            storage.root(),
            storage.url(),
            &StorageConfig::default(),
        );
        let place = storage.shown();
        let what = || format!("open the archive \"{}\" in \"{place}\"", spec.name);
        let columns = delta_schema::columns(&spec.schema)?;
        let there =
            store.is_delta_table_location().await.map_err(|e| failure::delta(&what(), e))?;
        let table = if there {
            let mut table = DeltaTable::new(store);
            if let Err(e) = table.load().await {
                return Err(damage::located(storage, failure::delta(&what(), e)).await);
            }
            table
        } else {
            refuse_orphans(storage, spec).await?;
            if spec.owner.as_ref().is_some_and(|owner| owner.is_created) {
                return Err(is_missing(storage));
            }
            create(store, spec, (columns, retention))
                .await
                .map_err(|e| failure::delta(&what(), e))?
        };
        let app = spec.name.clone();
        let log = Self { table, place, app, retention, cleaned_micros: None };
        log.check_owner(spec)?;
        log.check_schema(spec)?;
        Ok(log)
    }

    /// Refuses a table of another owner.
    fn check_owner(&self, spec: &TableSpec) -> Result<()> {
        let Some(owner) = &spec.owner else { return Ok(()) };
        match self.state()?.metadata().configuration().get(OWNER_KEY) {
            Some(stored) if *stored == owner.id => Ok(()),
            None if owner.may_be_unrecorded => Ok(()),
            stored => {
                let place = &self.place;
                let whose = match stored {
                    Some(stored) => format!("it belongs to {stored}, not to {}", owner.id),
                    None => format!("it records no owner instead of {}", owner.id),
                };
                let message = format!(
                    "the archive in \"{place}\" is not the one of \"{}\": {whose}",
                    spec.name
                );
                Err(Error::new(ErrorKind::Corrupt, message).with_hint(
                    "Another directory has been put in its place. Restore the one that was there; nothing has \
                     been overwritten.",
                ))
            }
        }
    }

    /// Refuses a table with another schema.
    fn check_schema(&self, spec: &TableSpec) -> Result<()> {
        let state = self.state()?;
        let stored = state.metadata().configuration().get(SCHEMA_KEY).ok_or_else(|| {
            Error::data(format!("the Delta table in \"{}\" was not created by Windrow", self.place))
                .with_hint("Use another directory.")
        })?;
        let stored = delta_schema::from_text(stored).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the schema in the Delta log of \"{}\" is damaged", self.place),
            )
        })?;
        if delta_schema::same(&stored, &spec.schema) || spec.layout().extends(&stored) {
            return Ok(());
        }
        Err(Error::data(format!(
            "the archive in \"{}\" has other columns than \"{}\"",
            self.place, spec.name
        ))
        .with_detail(delta_schema::difference(&stored, &spec.schema))
        .with_hint("Use the definition that created it, or another directory."))
    }

    /// Returns the actions that add the columns of a table that the log does not have yet.
    pub(crate) fn widening(&self, spec: &TableSpec) -> Result<Vec<Action>> {
        if spec.added.is_empty() {
            return Ok(vec![]);
        }
        let state = self.state()?;
        let stored = state.metadata().configuration().get(SCHEMA_KEY);
        let stored = stored.and_then(|text| delta_schema::from_text(text));
        if stored.is_some_and(|stored| delta_schema::same(&stored, &spec.schema)) {
            return Ok(vec![]);
        }
        let failed = |e| failure::delta(&self.what("add columns to"), e);
        let columns = delta_schema::columns(&spec.schema)?;
        let columns = StructType::try_new(columns).map_err(|e| failed(e.into()))?;
        let schema = delta_schema::to_text(&spec.schema)?;
        let metadata =
            state.metadata().clone().with_schema(&columns).map_err(|e| failed(e.into()))?;
        let metadata =
            metadata.add_config_key(SCHEMA_KEY.to_owned(), schema).map_err(|e| failed(e.into()))?;
        let mut actions = vec![Action::Metadata(metadata)];
        let has_local_times = delta_schema::has_local_times(&spec.schema);
        actions.extend(local_times(state.protocol(), has_local_times)?.map(Action::Protocol));
        Ok(actions)
    }

    /// The loaded state.
    fn state(&self) -> Result<&DeltaTableState> {
        self.table.snapshot().map_err(|e| failure::delta(&self.what("read"), e))
    }

    /// Describes the attempted operation.
    fn what(&self, verb: &str) -> String {
        format!("{verb} the Delta log of \"{}\" in \"{}\"", self.app, self.place)
    }

    /// The fingerprint of the query that created the table.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        self.state().ok()?.metadata().configuration().get(FINGERPRINT_KEY).cloned()
    }

    /// The live files, in no order.
    pub(crate) fn files(&self, spec: &TableSpec) -> Result<Vec<FileEntry>> {
        let files = self
            .state()?
            .snapshot()
            .try_log_data()
            .map_err(|e| failure::delta(&self.what("read"), e))?;
        files
            .iter()
            .map(|f| {
                let stats = f.stats();
                FileEntry::from_log(
                    &f.path(),
                    f.size(),
                    f.modification_time(),
                    stats.as_deref(),
                    &spec.schema,
                )
            })
            .collect()
    }

    /// The transaction version of the last append.
    pub(crate) async fn txn_version(&self) -> Result<Option<i64>> {
        self.state()?
            .transaction_version(self.table.log_store().as_ref(), &self.app)
            .await
            .map_err(|e| failure::delta(&self.what("read"), e))
    }

    /// Commits once. After an error it is unknown whether it was committed: reload the log.
    pub(crate) async fn commit(&mut self, commit: Commit) -> Result<()> {
        let mut properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        if let Some(version) = commit.txn_version {
            properties =
                properties.with_application_transaction(Transaction::new(&self.app, version));
        }
        if let Some(notes) = commit.notes {
            properties = properties.with_metadata([("windrow".to_owned(), notes)]);
        }
        let state = self.state()?.clone();
        let done = CommitBuilder::from(properties)
            .with_actions(commit.actions)
            .build(Some(&state as &dyn TableReference), self.table.log_store(), commit.operation)
            .await
            .map_err(|e| failure::delta(&self.what("commit to"), e))?;
        self.table.state = Some(done.snapshot);
        Ok(())
    }

    /// Rereads the log from the store.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        let state = DeltaTableState::try_new(self.table.log_store().as_ref(), None)
            .await
            .map_err(|e| failure::delta(&self.what("read"), e))?;
        self.table.state = Some(state);
        Ok(())
    }

    /// Writes a checkpoint if one is due, and deletes old log entries a few times within their retention. A failure
    /// only slows down the next opening, so it is logged and not returned.
    pub(crate) async fn checkpoint_if_due(&mut self, interval: u64, now_micros: i64) {
        let Some(version) = self.table.version() else { return };
        if version == 0 || !version.is_multiple_of(interval.max(1)) {
            return;
        }
        let written = async {
            checkpoints::create_checkpoint(&self.table, None).await?;
            if self.is_cleaning_due(now_micros) {
                checkpoints::cleanup_metadata(&self.table, None).await?;
                self.cleaned_micros = Some(now_micros);
            }
            // The old state still reads entries that may be gone, and more of them with each commit; from the
            // checkpoint on, commits are fast again.
            DeltaTableState::try_new(self.table.log_store().as_ref(), Some(version)).await
        };
        match written.await {
            Ok(state) => self.table.state = Some(state),
            Err(e) => {
                let e = failure::delta(&self.what("checkpoint"), e);
                tracing::warn!(table = %self.app, error = %e, "no checkpoint");
            }
        }
    }
}

impl DeltaLog {
    /// Whether old entries are to be deleted now. That lists the whole log, so it is not done at each checkpoint.
    fn is_cleaning_due(&self, now_micros: i64) -> bool {
        let Some(cleaned) = self.cleaned_micros else { return true };
        let elapsed = u128::try_from(now_micros.saturating_sub(cleaned)).unwrap_or(0);
        elapsed >= (self.retention / CLEANINGS).as_micros()
    }
}

/// Returns the protocol with the feature of timestamps without a time zone, if it is needed and not there.
fn local_times(protocol: &Protocol, needed: bool) -> Result<Option<Protocol>> {
    const FEATURE: &str = "timestampNtz";
    let failed = |e| Error::internal("the protocol of a Delta table is not JSON").with_source(e);
    let mut json = serde_json::to_value(protocol).map_err(failed)?;
    let has = |key: &str| json.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (mut reader, mut writer) = (has("readerFeatures"), has("writerFeatures"));
    if !needed || writer.iter().any(|feature| feature == FEATURE) {
        return Ok(None);
    }
    reader.push(FEATURE.into());
    writer.push(FEATURE.into());
    if let Some(fields) = json.as_object_mut() {
        fields.insert("minReaderVersion".to_owned(), 3.into());
        fields.insert("minWriterVersion".to_owned(), 7.into());
        fields.insert("readerFeatures".to_owned(), reader.into());
        fields.insert("writerFeatures".to_owned(), writer.into());
    }
    serde_json::from_value(json).map(Some).map_err(failed)
}

/// Creates the table: version 0 of its log.
async fn create(
    store: LogStoreRef,
    spec: &TableSpec,
    (columns, retention): (Vec<deltalake_core::kernel::StructField>, Duration),
) -> Result<DeltaTable, deltalake_core::DeltaTableError> {
    let schema = delta_schema::to_text(&spec.schema)
        .map_err(|e| deltalake_core::DeltaTableError::generic(e.message()))?;
    // Replaced files and log entries are useless once their current readers are done; retained for weeks, as is the
    // default, they would make every checkpoint slow.
    let retention = format!("interval {} seconds", retention.as_secs());
    let properties: HashMap<String, Option<String>> = [
        (SCHEMA_KEY, schema.as_str()),
        (FINGERPRINT_KEY, spec.fingerprint.as_str()),
        ("windrow.engineVersion", spec.engine_version.as_str()),
        ("delta.logRetentionDuration", retention.as_str()),
        ("delta.deletedFileRetentionDuration", retention.as_str()),
    ]
    .into_iter()
    .chain(spec.owner.as_ref().map(|owner| (OWNER_KEY, owner.id.as_str())))
    .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
    .collect();
    CreateBuilder::new()
        .with_log_store(store)
        .with_table_name(&spec.name)
        .with_columns(columns)
        .with_configuration(properties)
        .with_raise_if_key_not_exists(false)
        .await
}

/// Returns the error for a table that was created and is missing.
fn is_missing(storage: &Storage) -> Error {
    let directory = storage.shown_path(&storage.path_of("_delta_log"));
    Error::new(ErrorKind::Corrupt, format!("the archive's directory \"{directory}\" is missing"))
        .with_hint("Restore it from a backup; nothing has been overwritten.")
}

/// Refuses to create a new log where the log of a table was lost: its rows would vanish unnoticed.
async fn refuse_orphans(storage: &Storage, spec: &TableSpec) -> Result<()> {
    let what = format!("look for the archive \"{}\" in \"{}\"", spec.name, storage.shown());
    let here = storage.here();
    let mut files = here.list(None);
    loop {
        match files.try_next().await {
            Ok(None) | Err(deltalake_core::ObjectStoreError::NotFound { .. }) => return Ok(()),
            Ok(Some(meta)) if file_entry::rows_of(meta.location.as_ref()).is_some() => {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("the archive in \"{}\" has lost its Delta log", storage.shown()),
                )
                .with_detail(format!("There is the file \"{}\".", meta.location))
                .with_hint("Restore the directory \"_delta_log\", or use another directory."));
            }
            Ok(Some(_)) => {}
            Err(e) => return Err(failure::store(&what, e)),
        }
    }
}
