SELECT tumble(interval '5 minutes')
