SELECT name FROM codes LATE DATA TO out
