INCLUDE schema.sql;
