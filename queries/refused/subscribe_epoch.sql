SUBSCRIBE v_minutes AS OF EPOCH soon
