import Contract
import CoreMetrics
import CurlTransport
import JobQueue
import Logging
import Upstream

/// Recognition and retrieval before the request to the model.
extension Generation {
    /// Starts the preparation if the job needs one.
    /// - Parameter earlier: the event log of earlier attempts.
    /// - Returns: false when the model can be called at once.
    func beginPreparation(_ earlier: [LoggedEvent]) -> Bool {
        guard Preparation.isNeeded(claim.job, settings: context.settings) else { return false }
        var transcript: String?
        for event in earlier { if case .transcript(let text) = event.event { transcript = text } }
        // The generation owns the preparation, and nothing else keeps it.
        let preparation = Preparation(
            job: claim.job, transcript: transcript, context: context,
            remaining: { [unowned self] in times.remaining(at: context.loop.now) }
        ) { [unowned self] in prepared($0) }
        self.preparation = preparation
        startTimer()
        preparation.begin()
        return true
    }

    private func prepared(_ step: Preparation.Step) {
        switch step {
        case .entered(let phase): machine.preparing(phase)
        case .readAudio: request(.readAudio)
        case .checkInterrupt: request(.readInterruptKey)
        case .transcribed(let text):
            output.append(.transcript(text))
            request(.write(tokens: 0))
        case .retrieved(let count):
            output.append(.retrieved(count: count))
            request(.write(tokens: 0))
        case .retrievalFailed(let failure):
            context.metrics.retrievalFailed.increment()
            context.logger.warning(
                "retrieval failed; the job goes on without it",
                metadata: claim.job.logMetadata(["code": "\(failure.code.rawValue)", "reason": "\(failure.message)"]))
        case .ready(let body):
            preparation = nil
            preparedBody = body
            // Time has passed since the claim read the interrupt key.
            machine.prepared()
            request(.readInterruptKey)
        case .noSpeech:
            preparation = nil
            perform(machine.noSpeech())
        case .failed(let failure):
            preparation = nil
            perform(machine.fail(failure))
        }
    }

    /// Continues with the job's audio; nil: Redis has none.
    func audioRead(_ audio: [UInt8]?) {
        guard stage == .running else { return }
        preparation?.audioRead(audio)
    }
}
