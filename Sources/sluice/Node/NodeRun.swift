import Glibc
import Logging
import ServiceLifecycle
import UnixSignals

/// Runs services, in the order in which they depend on one another, until a signal or the failure of one of them.
///
/// The first SIGTERM or SIGINT drains them in reverse order. The second one stops them: they are cancelled and given half a second for what
/// cannot be left undone, then the process ends whatever they do.
struct NodeRun: Sendable {
    private static let lastMoment = Duration.milliseconds(500)

    let services: [any Service]
    let logger: Logger

    func run() async throws {
        let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
        // The group's own lines tell of its inner steps; only what goes wrong in it matters here.
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .error)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: services.map {
                    .init(service: $0, successTerminationBehavior: .gracefullyShutdownGroup, failureTerminationBehavior: .cancelGroup)
                }, logger: quiet))
        let result = await withTaskGroup(of: Result<Void, any Error>?.self) { tasks -> Result<Void, any Error> in
            tasks.addTask {
                do { return .success(try await group.run()) } catch { return .failure(error) }
            }
            tasks.addTask {
                await listen(to: signals, group: group)
                return nil
            }
            var result: Result<Void, any Error> = .success(())
            var wasStopped = false
            for await ended in tasks {
                if let ended {
                    result = wasStopped ? .failure(CommandFailure(.failed, "")) : ended
                    tasks.cancelAll()
                } else if !Task.isCancelled {
                    // The listener ended first: the second signal.
                    wasStopped = true
                    tasks.cancelAll()
                }
            }
            return result
        }
        do { try result.get() } catch let failure as CommandFailure {
            throw failure
        } catch {
            logger.error("node failed", metadata: ["error": "\(error)"])
            throw CommandFailure(.failed, "")
        }
        logger.info("node ended")
    }

    /// Returns after the second signal, or when it is cancelled.
    private func listen(to signals: UnixSignalsSequence, group: ServiceGroup) async {
        var isDraining = false
        for await signal in signals {
            guard isDraining else {
                isDraining = true
                logger.info("draining, a second signal stops at once", metadata: ["signal": "\(signal)"])
                await group.triggerGracefulShutdown()
                continue
            }
            logger.warning("stopping at once", metadata: ["signal": "\(signal)"])
            Task.detached {
                try? await Task.sleep(for: Self.lastMoment)
                // Without the handlers of exit(3), which other threads may be in the middle of using.
                _exit(ExitStatus.failed.rawValue)
            }
            return
        }
    }
}
