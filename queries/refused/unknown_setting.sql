SET batch_intervall = '1 s'
