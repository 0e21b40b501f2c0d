SELECT * FROM codes CROSS JOIN LATERAL (SELECT unnest(string_to_array(codes.name, ' '))) AS w(word)
