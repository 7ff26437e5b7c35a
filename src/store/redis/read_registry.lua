-- Reads the registry at one moment.
-- KEYS  the revision, the hash of entity types, the hash of feature services
return { redis.call('GET', KEYS[1]) or '0', redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]) }
