SET batch_interval = 'often'
