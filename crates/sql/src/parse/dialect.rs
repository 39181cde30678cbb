//! The dialect: sqlparser's generic one, plus `TABLE t [PARTITION BY k, …]` as an argument, with the operator
//! precedence of PostgreSQL and DuckDB.
//!
//! Invariants: all that [`GenericDialect`] accepts is accepted here, except columns named `case` or `not` without
//! quotes.
//! [`Dialect::dialect`] identifies it as the generic dialect to the parser, and every flag that the generic dialect
//! sets is set below. CASE, NOT and INTERVAL are parsed once: the parser would otherwise retry them as names, which
//! doubles its work with each level of a statement that has an error.

use std::any::TypeId;

use sqlparser::ast::{
    ColumnOption, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName,
};
use sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use windrow_core::budget::{self, Stop};

use super::relation::{named_table, select_star};

/// The name of the marker function for `TABLE t PARTITION BY k, …` between parsing and rewriting. `$` cannot begin an
/// identifier, so a statement cannot name it without quotes.
pub(super) const PARTITIONED: &str = "$partitioned";

/// The word that makes a column one of what a message carries besides its value.
pub(super) const METADATA: &str = "METADATA";

/// The only instance; it has no state.
pub(super) const DIALECT: WindrowDialect = WindrowDialect;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindrowDialect;

macro_rules! raise {
    ($($flag:ident)*) => { $( fn $flag(&self) -> bool { true } )* };
}

impl Dialect for WindrowDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        // Every expression passes here, so a cancelled statement is not parsed further.
        if let Err(stop) = budget::check(0) {
            return Some(Err(stopped(stop)));
        }
        match &parser.peek_token_ref().token {
            Token::Word(w) if w.keyword == Keyword::TABLE && is_table_argument(parser) => {
                Some(table_argument(parser))
            }
            Token::Word(w) if w.keyword == Keyword::CASE && !is_column(parser) => {
                parser.advance_token();
                Some(parser.parse_case_expr())
            }
            Token::Word(w) if w.keyword == Keyword::NOT && !is_column(parser) => {
                parser.advance_token();
                Some(parser.parse_not())
            }
            Token::Word(w) if w.keyword == Keyword::INTERVAL && !fields_first(parser) => {
                parser.advance_token();
                // The parser has no recursion limit for these.
                if matches!(&parser.peek_token_ref().token, Token::Word(w) if w.keyword == Keyword::INTERVAL)
                {
                    return Some(parser.expected("an interval's text", parser.peek_token()));
                }
                Some(parser.parse_interval())
            }
            _ => None,
        }
    }

    /// `METADATA [FROM 'name'] [VIRTUAL]`.
    fn parse_column_option(
        &self,
        parser: &mut Parser<'_>,
    ) -> Result<Option<Result<Option<ColumnOption>, ParserError>>, ParserError> {
        let is = |parser: &Parser<'_>, word: &str| matches!(&parser.peek_token_ref().token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
        if !is(parser, METADATA) {
            return Ok(None);
        }
        let mut tokens = vec![parser.next_token().token];
        if parser.parse_keyword(Keyword::FROM) {
            tokens.push(Token::make_keyword("FROM"));
            tokens.push(Token::SingleQuotedString(parser.parse_literal_string()?));
        }
        if is(parser, "VIRTUAL") {
            parser.advance_token();
        }
        Ok(Some(Ok(Some(ColumnOption::DialectSpecific(tokens)))))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        is_other(&parser.peek_token_ref().token).then_some(Ok(OTHER))
    }

    /// The order of PostgreSQL and DuckDB. Operators that they lack have the place that other databases give them: XOR
    /// is between OR and AND, as in MySQL.
    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::Period => 100,
            Precedence::DoubleColon => 50,
            Precedence::AtTz => 41,
            Precedence::MulDivModOp => 40,
            Precedence::PlusMinus => 30,
            Precedence::Ampersand | Precedence::Caret | Precedence::Pipe | Precedence::PgOther => {
                OTHER
            }
            Precedence::Colon => 23,
            Precedence::Between | Precedence::Like => 22,
            Precedence::Eq => 20,
            Precedence::Is => 17,
            Precedence::UnaryNot => 15,
            Precedence::And => 10,
            Precedence::Xor => 7,
            Precedence::Or => 5,
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if chains(parser, left) {
            let found = parser.peek_token();
            return Some(parser.expected("AND, OR or the end of the condition", found));
        }
        // sqlparser takes everything that follows as the right operand, including AND and OR.
        let negated = match distinct_from(parser)? {
            true => vec![Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM],
            false => vec![Keyword::IS, Keyword::DISTINCT, Keyword::FROM],
        };
        let right = parser
            .expect_keywords(&negated)
            .and_then(|()| parser.parse_subexpr(self.prec_value(Precedence::Is)));
        let left = Box::new(left.clone());
        Some(right.map(|right| match negated.len() {
            4 => Expr::IsNotDistinctFrom(left, Box::new(right)),
            _ => Expr::IsDistinctFrom(left, Box::new(right)),
        }))
    }

    raise! {
        supports_unicode_string_literal supports_partition_by_after_order_by
        supports_array_join_syntax supports_group_by_expr supports_group_by_with_modifier
        supports_left_associative_joins_without_parens supports_connect_by
        supports_match_recognize supports_pipe_operator supports_start_transaction_modifier
        supports_window_function_null_treatment_arg supports_dictionary_syntax
        supports_window_clause_named_window_reference supports_parenthesized_set_variables
        supports_select_wildcard_except support_map_literal_syntax allow_extract_custom
        allow_extract_single_quotes supports_extract_comma_syntax
        supports_create_view_comment_syntax supports_parens_around_table_factor
        supports_values_as_table_factor supports_create_index_with_clause
        supports_explain_with_utility_options supports_limit_comma supports_update_order_by
        supports_from_first_select supports_projection_trailing_commas
        supports_asc_desc_in_column_definition supports_try_convert
        supports_bitwise_shift_operators supports_comment_on supports_load_extension
        supports_named_fn_args_with_assignment_operator supports_struct_literal
        supports_empty_projections supports_nested_comments supports_multiline_comment_hints
        supports_user_host_grantee supports_string_escape_constant
        supports_array_typedef_with_brackets supports_match_against supports_set_names
        supports_comma_separated_set_assignments supports_filter_during_aggregation
        supports_select_wildcard_exclude supports_data_type_signed_suffix
        supports_interval_options supports_quote_delimited_string
        supports_select_wildcard_replace supports_select_wildcard_ilike
        supports_select_wildcard_rename supports_optimize_table supports_install supports_detach
        supports_prewhere supports_with_fill supports_limit_by supports_interpolate
        supports_settings supports_select_format supports_comment_optimizer_hint
        supports_constraint_keyword_without_name supports_key_column_option
        supports_comma_separated_trim supports_order_by_all supports_cte_without_as
        supports_select_item_multi_column_alias supports_xml_expressions
    }
}

/// The prefix of a parser's error that means that the statement has been cancelled. No parser writes this.
const STOPPED: &str = "\0stopped";

/// The cancellation as an error of the parser, which passes it on.
fn stopped(stop: Stop) -> ParserError {
    ParserError::ParserError(match stop {
        Stop::Ended => STOPPED.to_owned(),
        Stop::Over { wanted, bytes_max } => format!("{STOPPED} {wanted} {bytes_max}"),
    })
}

/// The cancellation that a parser's error stands for, if any.
pub(super) fn stop_in(error: &ParserError) -> Option<Stop> {
    let ParserError::ParserError(text) = error else { return None };
    let mut numbers = text.strip_prefix(STOPPED)?.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(wanted)), Some(Ok(bytes_max))) => Some(Stop::Over { wanted, bytes_max }),
        _ => Some(Stop::Ended),
    }
}

/// The precedence that PostgreSQL has for "any other operator": between arithmetic and BETWEEN.
const OTHER: u8 = 24;

/// Whether an operator is one of those. `^` is, because it means XOR and not the power.
fn is_other(token: &Token) -> bool {
    matches!(
        token,
        Token::StringConcat
            | Token::Pipe
            | Token::Ampersand
            | Token::Caret
            | Token::CaretAt
            | Token::Sharp
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::Overlap
            | Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk
    ) || matches!(token, Token::Word(w) if w.keyword == Keyword::OPERATOR && w.quote_style.is_none())
}

/// Whether `IS [NOT] DISTINCT FROM` is next; `Some(true)` with NOT.
fn distinct_from(parser: &Parser<'_>) -> Option<bool> {
    let is = |n: usize, keyword: Keyword| matches!(&parser.peek_nth_token_ref(n).token, Token::Word(w) if w.keyword == keyword);
    let negated = is(1, Keyword::NOT);
    let at = 1 + usize::from(negated);
    (is(0, Keyword::IS) && is(at, Keyword::DISTINCT) && is(at + 1, Keyword::FROM))
        .then_some(negated)
}

/// Whether the result of a comparison is compared again (`a < b < c`): PostgreSQL and DuckDB refuse that, as it is
/// hardly ever what is meant.
fn chains(parser: &Parser<'_>, left: &Expr) -> bool {
    use sqlparser::ast::BinaryOperator as Op;
    let next = &parser.peek_token_ref().token;
    let compares = matches!(
        next,
        Token::Eq
            | Token::DoubleEq
            | Token::Neq
            | Token::Lt
            | Token::LtEq
            | Token::Gt
            | Token::GtEq
    );
    compares
        && matches!(
            left,
            Expr::BinaryOp { op: Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq, .. }
        )
}

/// Whether `TABLE` begins an argument here: `TABLE (`, or a name that ends the argument. A column named `table` is left
/// alone, since other tokens follow it. This only looks ahead: backtracking would double the work with each level of
/// nesting.
fn is_table_argument(parser: &Parser<'_>) -> bool {
    if parser.peek_nth_token_ref(1).token == Token::LParen {
        return true;
    }
    let mut n = 1;
    while matches!(parser.peek_nth_token_ref(n).token, Token::Word(_)) {
        match &parser.peek_nth_token_ref(n + 1).token {
            Token::Period => n += 2,
            Token::Comma | Token::RParen => return true,
            Token::Word(w) => return w.keyword == Keyword::PARTITION,
            _ => return false,
        }
    }
    false
}

/// Whether the reserved word that is next is the name of a column: nothing that could begin an expression follows.
fn is_column(parser: &Parser<'_>) -> bool {
    match &parser.peek_nth_token_ref(1).token {
        Token::Word(w) => matches!(w.keyword, Keyword::FROM | Keyword::AS),
        Token::EOF | Token::Comma | Token::RParen | Token::RBracket | Token::Period | Token::Eq => {
            true
        }
        _ => false,
    }
}

/// Whether INTERVAL is next and its fields come before its text: `INTERVAL DAY TO HOUR '1 2'`.
fn fields_first(parser: &Parser<'_>) -> bool {
    let at = |n: usize| &parser.peek_nth_token_ref(n).token;
    let is_word = |n: usize| matches!(at(n), Token::Word(_));
    let is_text = |n: usize| matches!(at(n), Token::SingleQuotedString(_));
    let to = matches!(at(2), Token::Word(w) if w.keyword == Keyword::TO);
    is_word(1) && (is_text(2) || (to && is_word(3) && is_text(4)))
}

/// `TABLE name`, `TABLE (query)` or `TABLE (function(…))`, with `PARTITION BY`.
fn table_argument(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    parser.expect_keyword(Keyword::TABLE)?;
    let input = if parser.consume_token(&Token::LParen) {
        let inner = match &parser.peek_token_ref().token {
            Token::Word(w)
                if matches!(w.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES) =>
            {
                Expr::Subquery(parser.parse_query()?)
            }
            _ => parser.parse_expr()?,
        };
        parser.expect_token(&Token::RParen)?;
        inner
    } else {
        Expr::Subquery(Box::new(select_star(named_table(parser.parse_object_name(false)?))))
    };
    let keys = if parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        partition_keys(parser)?
    } else {
        vec![]
    };
    if !matches!(parser.peek_token_ref().token, Token::Comma | Token::RParen) {
        return parser.expected("the end of the argument", parser.peek_token());
    }
    Ok(if keys.is_empty() { input } else { partitioned(input, keys) })
}

/// `(k, …)`, or a single `k`: a second key without parentheses would look like the next argument.
fn partition_keys(parser: &mut Parser<'_>) -> Result<Vec<Expr>, ParserError> {
    if parser.consume_token(&Token::LParen) {
        let keys = parser.parse_comma_separated(Parser::parse_expr)?;
        parser.expect_token(&Token::RParen)?;
        Ok(keys)
    } else {
        Ok(vec![parser.parse_expr()?])
    }
}

fn partitioned(input: Expr, keys: Vec<Expr>) -> Expr {
    let arguments = std::iter::once(input).chain(keys);
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(PARTITIONED)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
