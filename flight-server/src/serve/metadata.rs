//! What the metadata commands of Flight SQL tell: catalogs, tables, types, what the server can do.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Command, CommandGetTables, Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity,
    SqlSupportedTransaction, SqlTransactionIsolationLevel, XdbcDataType,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_sql::RelationKind;
use tonic::Status;

use super::Server;
use super::access::Identity;
use super::results::client_schema;
use super::status::status;

/// The only catalog, and its only schema.
pub(super) const CATALOG: &str = "millstream";
pub(super) const SCHEMA: &str = "public";

const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";
const STREAM: &str = "STREAM";
/// Of this type only clients hear that ask for it: others show tables and views alone.
const MATERIALIZED_VIEW: &str = "MATERIALIZED VIEW";

impl Server {
    /// The answer to a metadata command for a user; none if it is none.
    ///
    /// # Errors
    /// Fails only for columns that cannot be written.
    pub(super) fn metadata(&self, user: &Identity, command: &Command) -> Result<Option<RecordBatch>, Status> {
        let batch = match command.clone() {
            Command::CommandGetCatalogs(command) => {
                let mut catalogs = command.into_builder();
                catalogs.append(CATALOG);
                catalogs.build()
            }
            Command::CommandGetDbSchemas(command) => {
                let mut schemas = command.into_builder();
                schemas.append(CATALOG, SCHEMA);
                schemas.build()
            }
            Command::CommandGetTables(command) => return self.tables(user, command).map(Some),
            Command::CommandGetTableTypes(command) => {
                let mut types = command.into_builder();
                [TABLE, VIEW, STREAM, MATERIALIZED_VIEW].iter().for_each(|kind| types.append(kind));
                types.build()
            }
            Command::CommandGetSqlInfo(command) => {
                let info = sql_info(self.limits.statement).map_err(|error| Status::internal(error.to_string()))?;
                command.into_builder(&info).build()
            }
            Command::CommandGetXdbcTypeInfo(command) => match TYPE_INFO.as_ref() {
                Ok(info) => command.into_builder(info).build(),
                Err(message) => return Err(Status::internal(message)),
            },
            // Nothing here has keys.
            Command::CommandGetPrimaryKeys(_) => Ok(RecordBatch::new_empty(primary_keys())),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => Ok(RecordBatch::new_empty(foreign_keys())),
            _ => return Ok(None),
        };
        batch.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn tables(&self, user: &Identity, command: CommandGetTables) -> Result<RecordBatch, Status> {
        let asks_for_views = command.table_types.iter().any(|kind| kind == MATERIALIZED_VIEW);
        let is_whole = command.include_schema;
        let mut tables = command.into_builder();
        for (name, kind) in self.engine.relations().into_iter().filter(|(name, kind)| user.role.sees(*kind, name)) {
            let columns = if is_whole { self.columns(&name, kind)? } else { Schema::empty() };
            let kind = match kind {
                RelationKind::Stream => STREAM,
                RelationKind::View => VIEW,
                RelationKind::MaterializedView if asks_for_views => MATERIALIZED_VIEW,
                _ => TABLE,
            };
            tables
                .append(CATALOG, SCHEMA, &name, kind, &columns)
                .map_err(|error| Status::internal(error.to_string()))?;
        }
        tables.build().map_err(|error| Status::internal(error.to_string()))
    }

    /// The columns of a relation, with the names of their types; none for a view that cannot be read any more.
    fn columns(&self, name: &str, kind: RelationKind) -> Result<Schema, Status> {
        let columns = match self.engine.columns_of(name) {
            Ok(columns) => columns,
            Err(_) if kind == RelationKind::View => return Ok(Schema::empty()),
            Err(error) => return Err(status(&error)),
        };
        let shown = client_schema(&columns);
        let fields = shown.fields().iter().zip(columns.fields()).map(|(field, declared)| {
            let metadata = [
                ("ARROW:FLIGHT:SQL:CATALOG_NAME", CATALOG.to_owned()),
                ("ARROW:FLIGHT:SQL:SCHEMA_NAME", SCHEMA.to_owned()),
                ("ARROW:FLIGHT:SQL:TABLE_NAME", name.to_owned()),
                ("ARROW:FLIGHT:SQL:TYPE_NAME", type_name(field.data_type())),
            ];
            let sizes = match field.data_type() {
                DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => vec![
                    ("ARROW:FLIGHT:SQL:PRECISION", precision.to_string()),
                    ("ARROW:FLIGHT:SQL:SCALE", scale.to_string()),
                ],
                _ => Vec::new(),
            };
            let metadata = metadata.into_iter().chain(sizes).map(|(key, value)| (key.to_owned(), value));
            field.as_ref().clone().with_nullable(declared.is_nullable()).with_metadata(metadata.collect())
        });
        Ok(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// The name of a type as SQL has it.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 => "VARCHAR",
        DataType::Binary | DataType::LargeBinary => "BINARY",
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "DECIMAL",
        other => return other.to_string().to_uppercase(),
    }
    .to_owned()
}

fn text(name: &str, is_nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, is_nullable)
}

/// The columns that the specification gives to the answer of `CommandGetPrimaryKeys`.
fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("key_name", true),
    ]))
}

/// The columns that the specification gives to the answers about foreign keys.
fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

/// What the server says of itself; only codes that the specification has, as clients fail on others.
fn sql_info(limit: Duration) -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Millstream");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    // Version 1 of the Arrow columnar format, in the numbering that clients compare.
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    // In milliseconds; a query over streams has none.
    info.append(SqlInfo::FlightSqlServerStatementTimeout, i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    let words: &[&str] = &["EMIT", "RETAIN", "WATERMARK", "STREAM", "SINK"];
    info.append(SqlInfo::SqlKeywords, words);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, SqlTransactionIsolationLevel::SqlTransactionNone as i32);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.build()
}

static TYPE_INFO: LazyLock<Result<XdbcTypeInfoData, String>> = LazyLock::new(|| {
    let types = [
        ("BOOLEAN", XdbcDataType::XdbcBit, 1),
        ("TINYINT", XdbcDataType::XdbcTinyint, 8),
        ("SMALLINT", XdbcDataType::XdbcSmallint, 16),
        ("INTEGER", XdbcDataType::XdbcInteger, 32),
        ("BIGINT", XdbcDataType::XdbcBigint, 64),
        ("REAL", XdbcDataType::XdbcReal, 24),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53),
        ("DECIMAL", XdbcDataType::XdbcDecimal, 38),
        ("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX),
        ("BINARY", XdbcDataType::XdbcVarbinary, i32::MAX),
        ("DATE", XdbcDataType::XdbcDate, 10),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29),
    ];
    let mut info = XdbcTypeInfoDataBuilder::new();
    for (name, kind, size) in types {
        let quote = ["VARCHAR", "DATE", "TIMESTAMP"].contains(&name).then(|| "'".to_owned());
        info.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type: kind,
            column_size: Some(size),
            literal_prefix: quote.clone(),
            literal_suffix: quote,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: name == "VARCHAR",
            searchable: Searchable::Full,
            unsigned_attribute: Some(false),
            auto_increment: Some(false),
            local_type_name: Some(name.to_owned()),
            sql_data_type: kind,
            ..XdbcTypeInfo::default()
        });
    }
    info.build().map_err(|error| error.to_string())
});
