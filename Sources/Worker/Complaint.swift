import Logging
import RedisClient

/// Says once that Redis refuses something, however often it is tried, and once that it is over.
struct Complaint {
    private let refused: Logger.Message
    private let over: Logger.Message
    private var tries = 0

    init(_ refused: Logger.Message, over: Logger.Message) {
        self.refused = refused
        self.over = over
    }

    mutating func raise(_ error: RedisError, _ logger: Logger, _ facts: Logger.Metadata = [:]) {
        if tries == 0 { logger.error(refused, metadata: facts.merging(["error": "\(error)"]) { $1 }) }
        tries += 1
    }

    mutating func settle(_ logger: Logger) {
        guard tries > 0 else { return }
        logger.info(over, metadata: ["refused": "\(tries)"])
        tries = 0
    }
}
