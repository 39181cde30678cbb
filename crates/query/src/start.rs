//! From a continuous plan to running tasks: physical plans, taps, scans, coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use parking_lot::Mutex;
use windrow_core::time::time_unit;
use windrow_core::{Error, Partition, Predicate, Result, ScanRequest, Watermark};
use windrow_operators::lateness::Tolerance;
use windrow_operators::{Differences, SavedState, SpillSpace, StatefulOperator};
use windrow_sql::leaf::LeafId;
use windrow_sql::plan::{
    ContinuousPlan, Flow, Leaf, LeafSource, OperatorInput, RowChanges, RowsFlow, Stage,
    micro_batch_state, physical,
};
use windrow_storage::checkpoint::{OperatorState, QueryCut, Resume, TapCut, Unused};
use windrow_stream::Stream;
use windrow_stream::followers::ReadBy;
use windrow_stream::memory::{MeasuredStore, OperatorMemory};
use windrow_stream::push::PushStream;

use crate::checkpointer::Checkpointer;
use crate::coordinator::{Coordinator, Promptness};
use crate::output::Output;
use crate::parts::QueryParts;
use crate::progress::{Progress, SharedProgress};
use crate::reference::ReferenceTables;
use crate::root::Root;
use crate::runner::{PlanRunner, RunBytes};
use crate::scan::{Scan, ScanTime};
use crate::shared::Shared;
use crate::stage::{FINISH_ROWS, InputRun, NestedRun, OperatorRun, StageRun};
use crate::tap::{PreparePlan, Sink, Stores, Tap};
use crate::tap_state::TapState;
use crate::versions::{Recorder, Scans, Versions};

/// The streams that a query may read, by name.
pub trait Streams: Sync {
    /// Returns the stream, or the materialized view as a stream.
    ///
    /// # Errors
    /// When there is none of this name.
    fn stream_to_read(&self, name: &str) -> Result<Arc<Stream>>;

    /// Whether the stream would end if no client pushed further rows.
    fn waits_for_pushes(&self, name: &str) -> bool;
}

/// A query that is ready to run, except for its scans.
#[derive(Debug)]
pub struct Ready {
    coordinator: Coordinator,
    taps: Vec<Draft>,
}

/// A tap before its scan is known.
#[derive(Debug)]
struct Draft {
    stream: Arc<Stream>,
    /// Whether the query reads the rows that exist now, and then ends.
    bounded: bool,
    leaf: LeafId,
    projection: Vec<usize>,
    /// Whether the leaf has the positions of its rows as a last column.
    positions: bool,
    predicates: Vec<Predicate>,
    plan: PreparePlan,
    sink: DraftSink,
    late_to: Option<Arc<PushStream>>,
    skips_rows: bool,
    /// Whether its query waits for a client.
    is_for_client: bool,
    /// Its position.
    at: Arc<TapState>,
}

/// The taps of one scan, each with its query.
type Drafts = Vec<(Arc<Shared>, Draft)>;

#[derive(Debug)]
enum DraftSink {
    Operator {
        operator: Arc<dyn StatefulOperator>,
        input: usize,
        lateness_ticks: i64,
        stores: Stores,
        memory: Option<Arc<OperatorMemory>>,
    },
    Rows(Output),
}

/// The parameters of a query.
#[derive(Debug)]
pub struct QuerySetup {
    /// The query.
    pub shared: Arc<Shared>,
    /// The destination of its rows.
    pub output: Output,
    /// Whether push streams count as ended once their current rows are read.
    pub push_ends: bool,
    /// The stream for its late rows (`LATE DATA TO`), if any.
    pub late_to: Option<Arc<PushStream>>,
    /// Windows that end at this watermark or before are archived already.
    pub archived: Watermark,
    /// The offsets from which logs of streams and views are read, by name; others are read from the beginning.
    pub from: BTreeMap<String, u64>,
    /// Makes its checkpoints; `None`: it has none.
    pub checkpointer: Option<Checkpointer>,
    /// The state from which it resumes; `None`: from the beginning.
    pub resume: Option<Resume>,
    /// Whether rows on which expressions fail become bad rows.
    pub skips_rows: bool,
    /// Where the versions of its refreshed tables are recorded; `None`: it does not survive a restart.
    pub recorder: Option<Arc<dyn Recorder>>,
}

impl QuerySetup {
    /// Returns the parameters of a query that begins at the beginning and has no checkpoints.
    pub fn new(shared: Arc<Shared>, output: Output, late_to: Option<Arc<PushStream>>) -> Self {
        Self {
            shared,
            output,
            push_ends: false,
            late_to,
            archived: Watermark::NONE,
            from: BTreeMap::new(),
            checkpointer: None,
            resume: None,
            skips_rows: false,
            recorder: None,
        }
    }
}

struct Builder<'a> {
    streams: &'a dyn Streams,
    state: SessionState,
    setup: QuerySetup,
    taps: Vec<Draft>,
    /// The state for operators and leaves, in the order in which they are created; `None`: from the beginning.
    resume: Option<ResumeCursor>,
    tables: ReferenceTables,
    /// The refreshed ones among them.
    scans: Scans,
}

/// The rest of a [`Resume`], for the operators and leaves that are yet to be created.
#[derive(Debug)]
struct ResumeCursor {
    operators: std::vec::IntoIter<OperatorState>,
    taps: std::vec::IntoIter<TapCut>,
    unused: Vec<Unused>,
    rows_given: Option<u64>,
}

/// Creates the physical plans of a query and its coordinator.
///
/// # Errors
/// When DataFusion cannot plan a part, a stream cannot be opened, or the state to resume from belongs to another plan.
pub async fn ready(
    streams: &dyn Streams,
    state: &SessionState,
    plan: ContinuousPlan,
    mut setup: QuerySetup,
) -> Result<Ready> {
    let resume = setup.resume.take().map(|resume| {
        let Resume { operators, taps, counts, unused, rows_given } = resume;
        setup.shared.restore(&counts);
        let (operators, taps) = (operators.into_iter(), taps.into_iter());
        ResumeCursor { operators, taps, unused, rows_given }
    });
    let mut builder = Builder {
        streams,
        state: micro_batch_state(state),
        setup,
        taps: vec![],
        resume,
        tables: ReferenceTables::default(),
        scans: Scans::default(),
    };
    let root = builder.root(plan.root).await?;
    builder.current_rows()?;
    let Builder { mut setup, taps, resume, tables, scans, state, .. } = builder;
    if !scans.tables.is_empty() {
        let bytes_max = state.config().get_extension::<RunBytes>().map_or(usize::MAX, |b| b.0);
        let keeps_all = matches!(setup.output, Output::View { .. });
        let versions = Versions::open(scans.tables, setup.recorder.take(), (keeps_all, bytes_max));
        // Set once: a query is made once.
        drop(setup.shared.versions.set(versions.await?));
    }
    *setup.shared.tables.lock() = tables.digests()?;
    let resumed = resume.is_some();
    if resume.is_some_and(|mut left| left.operators.next().is_some() || left.taps.next().is_some())
    {
        return Err(Error::internal("a checkpoint belongs to another plan"));
    }
    let read: Vec<_> = taps.iter().map(|tap| Arc::clone(&tap.at)).collect();
    let mut checkpointer = setup.checkpointer;
    let promptness = Promptness::new(plan.pace, setup.shared.clock.now_micros());
    if let (Some(checkpointer), Root::Stage(stage), true) = (&mut checkpointer, &root, resumed) {
        checkpointer.has(setup.shared.state.lock().batches, &read, stage.watermark());
    }
    let coordinator = Coordinator {
        shared: setup.shared,
        root,
        output: setup.output,
        taps: read,
        checkpointer,
        tables,
        moved_micros: i64::MIN,
        promptness,
    };
    Ok(Ready { coordinator, taps })
}

impl Ready {
    /// Returns the state of a query that has not begun: the positions at which it will begin.
    ///
    /// # Errors
    /// Never in practice: there is no state yet.
    pub fn first_cut(&mut self) -> Result<QueryCut> {
        self.coordinator.first_cut()
    }

    /// Records the initial positions of streams whose readers describe them before the first row, so that they are in
    /// the first checkpoint.
    ///
    /// # Errors
    /// When the partitions of a stream cannot be listed.
    pub async fn find_places(&mut self) -> Result<()> {
        for tap in &self.taps {
            let source = tap.stream.source(tap.bounded, ReadBy::Client, None);
            if source.rediscover_after().is_none() {
                continue;
            }
            for Partition { name, splits, .. } in source.discover().await? {
                for (split, place) in splits.iter().filter_map(|s| Some((s, s.place.as_ref()?))) {
                    tap.at.positions.lock().begin(&name, split, place);
                }
            }
        }
        Ok(())
    }
}

/// Starts queries together: each stream that they read is read once for all of them.
pub fn launch(parts: &QueryParts, queries: Vec<Ready>) {
    let mut scans: BTreeMap<(String, usize, bool, String), Drafts> = BTreeMap::new();
    let mut coordinators = Vec::new();
    for query in queries {
        let shared = Arc::clone(&query.coordinator.shared);
        let places = places(&query.taps);
        for tap in query.taps {
            let place = places.get(&tap.stream.name).cloned().unwrap_or_default();
            let width = tap.stream.schema.schema().fields().len();
            let key = (tap.stream.name.clone(), width, tap.bounded, place);
            scans.entry(key).or_default().push((Arc::clone(&shared), tap));
        }
        coordinators.push(query.coordinator);
    }
    let mut ready = Vec::new();
    for (_, taps) in scans {
        let Some((_, first)) = taps.first() else { continue };
        let (stream, bounded) = (Arc::clone(&first.stream), first.bounded);
        let event_time = stream.schema.event_time();
        let delay = event_time.map_or(0, |e| e.delay_ticks);
        let unit =
            event_time.and_then(|e| time_unit(stream.schema.schema().field(e.index).data_type()));
        let progress = Arc::new(Mutex::new(Progress::new(delay, unit)));
        for (shared, tap) in &taps {
            tap.at.reads(&progress);
            shared.add_tap(Arc::clone(&tap.at));
        }
        ready.push(scan(parts, &stream, bounded, progress, taps));
    }
    for coordinator in coordinators {
        let shared = Arc::clone(&coordinator.shared);
        parts.cpu.spawn(coordinator.run());
        shared.wake();
    }
    for scan in ready {
        parts.note_scan(&scan);
        parts.cpu.spawn(Arc::new(scan).run());
    }
}

/// The positions of a query in streams whose readers describe them, by stream. Queries at different positions read such
/// a stream separately, because an offset alone does not identify the rows behind it.
fn places(taps: &[Draft]) -> BTreeMap<String, String> {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for tap in taps {
        let mut text = String::new();
        for (partition, read, place) in tap.at.from.places() {
            text.push_str(&format!("{partition}\n{}\n{place}\n", read.consumed));
        }
        let known = places.entry(tap.stream.name.clone()).or_default();
        // Two leaves of one query may be a batch apart; they share a scan.
        if known.is_empty() || (!text.is_empty() && text < *known) {
            *known = text;
        }
    }
    places
}

/// The indexes of the columns that these taps need of a stream, ascending.
fn columns(stream: &Stream, taps: &[(Arc<Shared>, Draft)]) -> Vec<usize> {
    // Late and bad rows are stored with all columns.
    let whole_rows = taps.iter().any(|(_, t)| t.late_to.is_some() || t.skips_rows);
    let mut columns: Vec<usize> = if whole_rows {
        (0..stream.schema.schema().fields().len()).collect()
    } else {
        taps.iter().flat_map(|(_, t)| t.projection.iter().copied()).collect()
    };
    columns.extend(stream.schema.event_time().map(|e| e.index));
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Returns a scan of a stream for these taps. `bounded`: of its current rows only.
fn scan(
    parts: &QueryParts,
    stream: &Stream,
    bounded: bool,
    progress: SharedProgress,
    taps: Drafts,
) -> Scan {
    let event_time = stream.schema.event_time();
    let columns = columns(stream, &taps);
    let at = |column: usize| columns.partition_point(|c| *c < column);
    let time = event_time.map(|e| at(e.index));
    let explicit = stream.is_view();
    let windowed = taps.iter().any(|(_, t)| matches!(t.sink, DraftSink::Operator { .. }));
    let predicates = match taps.as_slice() {
        [(_, only)] => only.predicates.clone(),
        _ => vec![],
    };
    let delay = event_time.filter(|_| !explicit).map(|e| e.delay_ticks);
    let mut intake = stream.intake();
    intake.time = time.filter(|_| !explicit);
    let read_by = match taps.iter().any(|(_, t)| t.is_for_client) {
        true => ReadBy::Client,
        false => ReadBy::Query,
    };
    let source = stream.source(bounded, read_by, None);
    if source.is_bounded() {
        intake.max_future_skew_micros = None;
    }
    let taps = taps
        .into_iter()
        .map(|(shared, draft)| {
            let sink = match draft.sink {
                DraftSink::Rows(output) => Sink::Rows { output, delay: delay.unwrap_or(0) },
                DraftSink::Operator { operator, input, lateness_ticks, stores, memory } => {
                    let valid = operator.valid_times();
                    intake.valid = (*intake.valid.start()).max(*valid.start())
                        ..=(*intake.valid.end()).min(*valid.end());
                    let tolerance =
                        Tolerance { delay: delay.unwrap_or(0), allowed_lateness: lateness_ticks };
                    Sink::Operator { operator, input, tolerance, stores, memory }
                }
            };
            Arc::new(Tap {
                shared,
                stream: stream.name.clone(),
                leaf: draft.leaf,
                projection: draft.projection.iter().map(|c| at(*c)).collect(),
                positions: draft.positions,
                time,
                plan: draft.plan,
                state: parts.micro_batch_state(),
                sink,
                late_rows: Arc::clone(&parts.late_rows),
                skipped: draft.skips_rows.then(|| Arc::clone(&parts.bad_rows)),
                late_to: draft.late_to,
                at: draft.at,
            })
        })
        .collect();
    Scan {
        stream: stream.name.clone(),
        source,
        request: ScanRequest {
            projection: columns.clone(),
            predicates,
            event_time: event_time.filter(|_| windowed && !explicit).map(|e| e.index),
            from: None,
            place: None,
            past: 0,
            until_now: bounded,
            batch_rows_max: parts.limits.batch_rows_max,
        },
        taps,
        progress,
        intake,
        time: ScanTime { delay_ticks: delay, when_idle: stream.when_idle },
        bad_rows: Arc::clone(&parts.bad_rows),
        clock: Arc::clone(&parts.clock),
        limits: parts.limits.clone(),
        counters: Arc::clone(&parts.counters),
        unread: AtomicU64::new(0),
        paused: parts.paused.subscribe(),
        time_type: event_time.map(|e| stream.schema.schema().field(e.index).data_type().clone()),
    }
}

impl Builder<'_> {
    async fn root(&mut self, flow: Flow) -> Result<Root> {
        match flow {
            Flow::Stage(stage) => {
                // Changes have one order, and are archived with the checkpoint that they are in.
                let is_ordered = self.setup.output.is_ordered() && stage.changes.is_none();
                // A finish plan that joins a table does not keep the order of rows.
                let numbered = is_ordered
                    && stage.row_wise
                    && !stage.keeps_order
                    && stage.operators.len() == 1;
                let keeps_order = stage.keeps_order || numbered;
                let mut stage = self.stage(*stage, numbered).await?;
                stage.archived = self.setup.archived;
                stage.closed = self.setup.shared.state.lock().windows_closed;
                // One end after the other, so that rows have the same offsets in every run, unless their order is
                // fixed.
                if is_ordered {
                    stage.in_order = match stage.operators.as_mut_slice() {
                        [one] => keeps_order && one.operator.keep_order(),
                        _ => false,
                    };
                    stage.row_wise = stage.in_order && stage.tables.is_empty();
                    stage.sorted = self.setup.shared.operator_memory();
                }
                Ok(Root::Stage(Box::new(stage)))
            }
            Flow::Rows(flow) => {
                let plan = self.prepare(&flow).await?;
                let prepare = Arc::new(PlanRunner::new(Arc::clone(&plan.plan), &self.state));
                let mut nested = Vec::new();
                for leaf in flow.leaves {
                    let sink = DraftSink::Rows(self.setup.output.clone());
                    if let Some((_, leaf, stage)) = self.leaf(leaf, &plan, sink).await? {
                        nested.push((leaf, stage));
                    }
                }
                Ok(Root::Rows { nested, prepare })
            }
        }
    }

    /// `numbered`: whether its rows are put in order by the numbers of the finished rows that they come from.
    async fn stage(&mut self, stage: Stage, numbered: bool) -> Result<StageRun> {
        let changes = stage.changes.as_ref().map(|changes| *changes != RowChanges::AppendOnly);
        let early = stage.early_results();
        let whole = early.is_some_and(|early| early.whole);
        let finish = match (changes.is_some() && !whole) || numbered {
            true => stage.traced_finish()?,
            false => stage.finish,
        };
        let mut operators = Vec::new();
        for node in stage.operators {
            let memory = self.setup.shared.operator_memory();
            let operator = node.operator;
            let mut run = OperatorRun::new(node.leaf, operator.as_ref(), memory.clone());
            for (number, input) in node.inputs.into_iter().enumerate() {
                let of = (&operator, number);
                run.inputs.push(self.operator_input(input, of, memory.as_ref()).await?);
            }
            self.resume(&mut run, operator.as_ref())?;
            operators.push(run);
        }
        let (finish, tables) = self.scans.replace(finish)?;
        if changes.is_some() {
            self.scans.refuse(&tables, "with a result that changes")?;
        }
        let finish = self.tables.pin(&self.state, finish).await?;
        let state = self.finish_state();
        let finish = PlanRunner::new(physical(&state, &finish).await?, &state);
        // Each end has versions of its own.
        let row_wise = stage.row_wise && tables.is_empty();
        Ok(StageRun {
            operators,
            finish,
            row_wise,
            numbered,
            changes,
            early,
            differences: whole.then(Differences::default),
            window: (i64::MIN, false),
            holds_back: false,
            in_order: changes.is_some(),
            closed: 0,
            archived: Watermark::NONE,
            sorted: None,
            tables,
            query: Arc::clone(&self.setup.shared),
            open: None,
        })
    }

    /// Creates one input of an operator, with the taps and stages that feed it.
    async fn operator_input(
        &mut self,
        input: OperatorInput,
        (operator, number): (&Arc<dyn StatefulOperator>, usize),
        memory: Option<&Arc<OperatorMemory>>,
    ) -> Result<InputRun> {
        let OperatorInput { flow, lag_ticks, lateness_ticks } = input;
        let plan = self.prepare(&flow).await?;
        let mut run = InputRun { lag_ticks, lateness_ticks, ..InputRun::default() };
        for leaf in flow.leaves {
            let sink = DraftSink::Operator {
                operator: Arc::clone(operator),
                input: number,
                lateness_ticks,
                stores: Arc::clone(&run.stores),
                memory: memory.cloned(),
            };
            match Box::pin(self.leaf(leaf, &plan, sink)).await? {
                Some((plan, leaf, stage)) => run.nested.push(NestedRun {
                    leaf,
                    stage: Box::new(stage),
                    prepare: Arc::new(PlanRunner::new(plan, &self.state)),
                    store: MeasuredStore::new(operator.worker(number), memory),
                }),
                None => run.taps.extend(self.taps.last().map(|t| Arc::clone(&t.at))),
            }
        }
        Ok(run)
    }

    /// The settings of finish plans. With a memory limit, batches are short, because spilled rows are merged from many
    /// batches at once.
    fn finish_state(&self) -> SessionState {
        let mut state = self.state.clone();
        if self.setup.shared.memory.is_some() {
            *state.config_mut() = state.config().clone().with_batch_size(FINISH_ROWS);
        }
        state
    }

    /// Creates the tap, or the nested stage, that feeds a leaf.
    async fn leaf(
        &mut self,
        leaf: Leaf,
        plan: &PreparePlan,
        sink: DraftSink,
    ) -> Result<Option<(Arc<dyn datafusion::physical_plan::ExecutionPlan>, LeafId, StageRun)>> {
        let (relation, mut projection, predicates) = match leaf.from {
            LeafSource::Stage(stage) => {
                let stage = Box::pin(self.stage(*stage, false)).await?;
                return Ok(Some((Arc::clone(&plan.plan), leaf.id, stage)));
            }
            LeafSource::Stream { relation, projection, predicates } => {
                (relation, projection, predicates)
            }
        };
        // The hidden column is computed, not read; it is the last.
        let positions = relation.position().is_some_and(|at| projection.last() == Some(&at));
        if positions {
            projection.pop();
        }
        let stream = self.streams.stream_to_read(relation.name())?;
        // With the columns that it had when the query was planned.
        let width = relation.schema().fields().len() - usize::from(relation.position().is_some());
        let stream = stream.as_of(width);
        let at = Arc::new(self.tap_state(&stream.name)?);
        let bounded = self.setup.push_ends
            && stream.log().is_some()
            && self.streams.waits_for_pushes(&stream.name);
        self.taps.push(Draft {
            at,
            bounded,
            leaf: leaf.id,
            projection,
            positions,
            predicates,
            plan: plan.clone(),
            sink,
            late_to: self.setup.late_to.clone(),
            skips_rows: self.setup.skips_rows,
            is_for_client: matches!(self.setup.output, Output::Client { .. }),
            stream,
        });
        Ok(None)
    }

    /// Returns the initial position of a leaf.
    fn tap_state(&mut self, stream: &str) -> Result<TapState> {
        let Some(cursor) = &mut self.resume else {
            return Ok(TapState::new(stream, self.setup.from.get(stream).copied()));
        };
        let cut = cursor.taps.next().filter(|tap| tap.stream == stream);
        let state = TapState::resumed(
            cut.ok_or_else(|| Error::internal("a checkpoint has other streams than its query"))?,
        );
        let (own, others) = std::mem::take(&mut cursor.unused)
            .into_iter()
            .partition(|u| u.stream() == Some(stream));
        cursor.unused = others;
        state.remember_unused(own);
        Ok(state)
    }

    /// Restores a stateful operator, if there is a state.
    fn resume(&mut self, run: &mut OperatorRun, operator: &dyn StatefulOperator) -> Result<()> {
        if let Some(cursor) = &mut self.resume {
            let state = cursor.operators.next();
            let state = state.ok_or_else(|| {
                Error::internal("a checkpoint has fewer operators than its query")
            })?;
            let OperatorState { watermark, frontier, next_id, mut segments } = state;
            run.watermark = watermark;
            let memory = self.setup.shared.operator_memory();
            let space = memory.as_deref().map(|memory| memory as &dyn SpillSpace);
            let state = SavedState { frontier, next_id, segments: &mut segments, space };
            run.resume(operator.restore(state)?)?;
        } else if self.setup.checkpointer.is_some() {
            run.operator.keep_cuts();
        }
        Ok(())
    }

    /// Restores the current rows of a view with an updating result, whose state is behind those of the operators.
    fn current_rows(&mut self) -> Result<()> {
        let Output::View { answer: Some(answer), .. } = &self.setup.output else { return Ok(()) };
        let Some(cursor) = &mut self.resume else { return Ok(()) };
        let state = cursor.operators.next();
        let state = state.ok_or_else(|| Error::internal("a checkpoint lacks the current rows"))?;
        let OperatorState { frontier, next_id, mut segments, .. } = state;
        let state = SavedState { frontier, next_id, segments: &mut segments, space: None };
        answer.restore(state, cursor.rows_given.unwrap_or(0))
    }

    async fn prepare(&mut self, flow: &RowsFlow) -> Result<PreparePlan> {
        let (plan, mut tables) = self.scans.replace(flow.plan.clone())?;
        let (traced, in_traced) = self.scans.replace(flow.traced()?.plan)?;
        let has_times = |stream: &str| {
            let stream = self.streams.stream_to_read(stream)?;
            Ok(stream.schema.event_time().is_some())
        };
        self.scans.check_times(&tables, flow, &has_times)?;
        tables.extend(in_traced);
        let plan = self.tables.pin(&self.state, plan).await?;
        let traced = self.tables.pin(&self.state, traced).await?;
        Ok(PreparePlan {
            row_preserving: flow.is_row_preserving()?,
            tables,
            plan: physical(&self.state, &plan).await?,
            traced: physical(&self.state, &traced).await?,
        })
    }
}
