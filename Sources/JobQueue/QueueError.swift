import RedisClient

/// The error of every command on the queue. Its code says whether Redis may have executed the command, and its description what failed and
/// on which server.
package typealias QueueError = RedisError

/// The executor of actors that share an event loop with the connections to Redis, so that commands cost no change of thread.
package typealias QueueExecutor = LoopExecutor
