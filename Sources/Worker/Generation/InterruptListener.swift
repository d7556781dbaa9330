import Contract
import CoreMetrics
import JobQueue
import Logging
import NIOCore
import RedisClient

/// Hears the cancel channel of every partition and passes interrupts on: to the claim that is under way, or to the job that runs, whose
/// connection is cut at once (`GenerationRoom.interrupt`). On a connection of its own.
struct InterruptListener: Sendable {
    let subscriber: RedisSubscriber
    let consumer: JobConsumer
    let claimer: Claimer
    let room: GenerationRoom
    let metrics: WorkerMetrics
    let logger: Logger
    let clock: @Sendable () -> UInt64
    /// Called when a subscription is in force again: what was published meanwhile may be missed.
    let mayHaveMissed: @Sendable () -> Void
    /// Called when jobs were handed back by another worker.
    let jobsReturned: @Sendable () -> Void

    /// On the subscriber's event loop, which is the claimer's.
    func listen() {
        for partition in 0..<consumer.keys.partitions {
            subscriber.subscribe(consumer.keys.cancel(partition: partition)) { event in
                switch event {
                case .message(let buffer): heard(buffer)
                case .subscribed: mayHaveMissed()
                case .lost: break
                }
            }
            subscriber.subscribe(consumer.keys.returned(partition: partition)) { event in
                switch event {
                // What was handed back before the subscription was in force, nobody told of.
                case .message, .subscribed: jobsReturned()
                case .lost: break
                }
            }
        }
    }

    private func heard(_ message: ByteBuffer) {
        let seenAt = clock()
        guard let interrupt = Interrupt(parsing: message.readableBytesView) else {
            metrics.cancelIgnored.increment()
            logger.warning(
                "a message on the cancel channel is no interrupt and is ignored", metadata: ["bytes": "\(message.readableBytes)"])
            return
        }
        if claimer.assumeIsolated({ $0.keep(interrupt) }) { return }
        room.interrupt(interrupt, seenAt: seenAt)
    }
}
