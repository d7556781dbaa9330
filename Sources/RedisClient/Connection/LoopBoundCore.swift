import NIOCore
import Synchronization

/// The state of a client with one connection. Used only on its event loop.
protocol ConnectionCore: AnyObject, SendableMetatype {
    /// Starts connecting; `waiter` resumes when the core stops.
    func run(_ waiter: CheckedContinuation<Void, Never>)
    /// Closes the connection and stops reconnecting.
    func stop()
}

/// Makes a core callable from any thread, and stops it when its client is released.
final class LoopBoundCore<Core: ConnectionCore>: Sendable {
    private let eventLoop: any EventLoop
    private let box: NIOLoopBoundBox<Core>
    private let isStopped = Atomic(false)

    init(_ core: sending Core, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        box = .makeBoxSendingValue(core, eventLoop: eventLoop)
    }

    deinit {
        // Sockets and timers retain the core, so an unused client would reconnect indefinitely. A client that was shut down may outlive its
        // event loop, which must not be used then.
        guard !isStopped.load(ordering: .acquiring) else { return }
        eventLoop.execute { [box] in box.value.stop() }
    }

    /// The core. Must be called on the event loop.
    var onLoop: Core { box.value }

    /// Runs `body` immediately if called on the event loop, otherwise schedules it there.
    func perform(_ body: @escaping @Sendable (Core) -> Void) {
        if eventLoop.inEventLoop {
            body(box.value)
        } else {
            eventLoop.execute { [box] in body(box.value) }
        }
    }

    /// Keeps a connection until the task is cancelled or the core is stopped.
    func run() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { waiter in
                eventLoop.execute { self.box.value.run(waiter) }
            }
        } onCancel: {
            stop()
        }
    }

    /// Stops the core.
    func stop() {
        perform { core in
            core.stop()
            self.isStopped.store(true, ordering: .releasing)
        }
    }
}
