"""Results of reconciliations as pages to print and as spreadsheets. Pure: same run, same bytes."""
