import JobQueue
import Logging

/// Logs a repeated error of the queue once, and its end once, however often the command is retried in between.
struct OnceLogger {
    private let refused: Logger.Message
    private let over: Logger.Message
    private var tries = 0

    init(_ refused: Logger.Message, over: Logger.Message) {
        self.refused = refused
        self.over = over
    }

    /// Logs the first error of a row at level error; later ones are only counted.
    mutating func failed(_ error: QueueError, _ logger: Logger, _ facts: Logger.Metadata = [:]) {
        if tries == 0 { logger.error(refused, metadata: facts.merging(["error": "\(error)"]) { $1 }) }
        tries += 1
    }

    /// Logs the end of a row of errors with their number, and resets the count. Does nothing when there was no error.
    mutating func recovered(_ logger: Logger) {
        guard tries > 0 else { return }
        logger.info(over, metadata: ["refused": "\(tries)"])
        tries = 0
    }
}
