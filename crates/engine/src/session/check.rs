//! Checking statements without running them: what an engine that only plans does with each.
//!
//! Streams, views and tables are defined, so that later statements know them. Of sources only what
//! their columns need is read. No query runs, nothing is written.

use std::sync::Arc;

use datafusion::datasource::MemTable;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement as EngineStatement;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, Explained, Insert, Parsed, Statement};
use windrow_sql::plan::{bounded, continuous};
use windrow_stream::Feed;
use windrow_stream::lengths::no_lengths;
use windrow_stream::target::Target;

use crate::catalog::{Object, plain_name};
use crate::session::first_rows::apart;
use crate::session::{Outcome, Session};

impl Session {
    /// Plans a statement.
    pub(super) async fn check(&self, parsed: Parsed) -> Result<Outcome> {
        let session = self.with_files(&parsed).await?;
        let Parsed { statement, text, .. } = parsed;
        session.plan_statement(statement, &text).await?;
        Ok(Outcome::Done("CHECK".into()))
    }

    async fn plan_statement(&self, statement: Statement, text: &str) -> Result<()> {
        let defined = match statement {
            Statement::Query(query) => return self.check_query(query).await,
            Statement::Insert(insert) => return self.check_insert(*insert).await,
            Statement::Summarize(query) => return self.check_query(*query).await,
            Statement::CopyOut(copy) => return self.check_query(copy.query).await,
            Statement::CopyFrom(copy) => {
                let insert = copy.as_insert(&[])?;
                return self
                    .engine
                    .catalog
                    .exists(&plain_name(&insert.target)?)
                    .then_some(())
                    .ok_or_else(|| {
                        self.engine.catalog.missing("stream", &insert.target.to_string())
                    });
            }
            Statement::Explain(explain) => match explain.what {
                Explained::Statement(statement) => {
                    return Box::pin(self.plan_statement(*statement, text)).await;
                }
                Explained::WhyNot(view) => return self.check_view(&view),
            },
            Statement::Subscribe { view, .. } | Statement::WaitFor { view, .. } => {
                return self.check_view(&view);
            }
            Statement::Verify(verify) => return self.check_view(&verify.view),
            Statement::DataFusion(statement) => return self.check_standard(*statement).await,
            Statement::CreateStream(create) => self.create_stream(create, text).await,
            Statement::CreateView(create) => self.create_view(create, text).await,
            Statement::Drop(drop) => self.drop_objects(&drop).await,
            Statement::Set(set) => self.set(&set),
            Statement::Describe(name) => self.describe(&name).await,
            Statement::ShowCreate(name) => self.show_create(&name).await,
            Statement::Show(kind) => self.show(kind).await,
        };
        defined.map(drop)
    }

    fn check_view(&self, view: &sqlparser::ast::ObjectName) -> Result<()> {
        self.engine.catalog.materialized(&plain_name(view)?).map(drop)
    }

    async fn check_query(&self, query: ContinuousQuery) -> Result<()> {
        let plan = self.plan(&query.query, &[]).await?;
        if query.tail.is_empty() {
            return self.check_bounded(plan).await;
        }
        continuous(&self.state(), apart(plan)?.0, &query.tail).map(drop)
    }

    async fn check_bounded(&self, plan: LogicalPlan) -> Result<()> {
        let plan = bounded(plan)?;
        self.state().optimize(&plan).map(drop).map_err(from_datafusion)
    }

    async fn check_insert(&self, insert: Insert) -> Result<()> {
        let name = plain_name(&insert.target)?;
        match self.engine.catalog.get(&name) {
            Some(Object::Stream(stream)) => {
                let Feed::Push(push) = &stream.feed else {
                    return Err(Error::sql(format!(
                        "stream \"{name}\" is fed by its connector \"{}\", rows cannot be inserted",
                        stream.connector
                    )));
                };
                let plan = self.plan(&insert.query.query, &[]).await?;
                let given = plan.schema().fields().len();
                Target::new(push, &insert, &name, given)?;
                self.check_query(insert.query).await
            }
            Some(other) => Err(Error::sql(format!(
                "\"{name}\" is a {}, rows cannot be inserted",
                other.kind()
            ))),
            None if self.engine.catalog.exists(&name) => {
                self.check_standard(insert.into_datafusion()).await
            }
            None => Err(self.engine.catalog.missing("stream", &name)),
        }
    }

    /// Defines what a statement of DataFusion's defines, tables without their rows.
    async fn check_standard(&self, statement: EngineStatement) -> Result<()> {
        no_lengths(&statement)?;
        let plan = self.standard_plan(statement).await?;
        let plan = bounded(plan)?;
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                self.state().optimize(&table.input).map_err(from_datafusion)?;
                let schema = Arc::new(table.input.schema().as_arrow().clone());
                let empty = MemTable::try_new(schema, vec![vec![]]).map_err(from_datafusion)?;
                let name = table.name.table().to_owned();
                if self.engine.catalog.exists(&name) {
                    if table.if_not_exists {
                        return Ok(());
                    }
                    if !table.or_replace {
                        return Err(crate::catalog::exists(&name));
                    }
                    self.context.deregister_table(table.name.clone()).map_err(from_datafusion)?;
                }
                self.context
                    .register_table(table.name, Arc::new(empty))
                    .map_err(from_datafusion)?;
                Ok(())
            }
            // Only the columns of the files are read.
            LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => {
                self.context.execute_logical_plan(plan).await.map(drop).map_err(from_datafusion)
            }
            plan => self.state().optimize(&plan).map(drop).map_err(from_datafusion),
        }
    }
}
