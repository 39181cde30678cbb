//! The dialect: sqlparser's generic one, plus `TABLE t [PARTITION BY k, …]` as an argument, with
//! PostgreSQL's precedence of JSON arrows and `||`.
//!
//! Invariants: whatever [`GenericDialect`] accepts is accepted here, but for columns that are called
//! `case` or `not` without quotes; [`Dialect::dialect`] tells the parser so, and every flag that the
//! generic dialect raises is raised again below. CASE, NOT and INTERVAL are read once: the parser's
//! second try of them as names doubles its work with each level of a statement that is wrong.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName,
};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::relation::{named_table, select_star};

/// The name of the marker function that stands for `TABLE t PARTITION BY k, …` between parsing
/// and rewriting. `$` cannot begin an identifier, so no text can name it without quotes.
pub(super) const PARTITIONED: &str = "$partitioned";

/// The one instance; it has no state.
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
                // The parser has no limit of its own for these.
                if matches!(&parser.peek_token_ref().token, Token::Word(w) if w.keyword == Keyword::INTERVAL)
                {
                    return Some(parser.expected("an interval's text", parser.peek_token()));
                }
                Some(parser.parse_interval())
            }
            _ => None,
        }
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        let concatenates = parser.peek_token_ref().token == Token::StringConcat;
        concatenates.then(|| Ok(self.prec_value(Precedence::PgOther)))
    }

    /// As in PostgreSQL, `->`, `->>`, `@>` and the like bind tighter than comparisons, LIKE and
    /// BETWEEN, and less tightly than arithmetic.
    fn prec_value(&self, precedence: Precedence) -> u8 {
        GenericDialect.prec_value(match precedence {
            Precedence::PgOther => Precedence::Pipe,
            other => other,
        })
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
        supports_comma_separated_trim supports_cte_without_as
        supports_select_item_multi_column_alias supports_xml_expressions
    }
}

/// Whether `TABLE` begins an argument here: `TABLE (`, or a name and the argument's end after it.
/// A column that is called `table` is left alone: what follows differs. This only looks ahead; to
/// try and go back would double the work with each level of nesting.
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

/// Whether the reserved word that is next is the name of a column after all: nothing follows that
/// could begin an expression.
fn is_column(parser: &Parser<'_>) -> bool {
    match &parser.peek_nth_token_ref(1).token {
        Token::Word(w) => matches!(w.keyword, Keyword::FROM | Keyword::AS),
        Token::EOF | Token::Comma | Token::RParen | Token::RBracket | Token::Period | Token::Eq => {
            true
        }
        _ => false,
    }
}

/// Whether INTERVAL is next and its fields stand before its text: `INTERVAL DAY TO HOUR '1 2'`.
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

/// `(k, …)`, or one `k`: a second bare key could not be told from the next argument.
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
