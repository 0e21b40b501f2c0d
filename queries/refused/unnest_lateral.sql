SELECT * FROM codes, LATERAL UNNEST(string_to_array(codes.name, ' ')) AS w(word)
