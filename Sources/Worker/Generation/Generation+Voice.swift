import Contract
import CoreMetrics
import JobQueue
import Logging
import Upstream

/// The voice that reads the text while it is written.
extension Generation {
    var isSpeaking: Bool { speech.map { !$0.isOver } ?? false }

    func beginSpeech() {
        guard let wish = claim.job.speech, let configuration = core.settings.speech, continuation?.isVoiceClosed != true else { return }
        let speech = SpeechRun(
            configuration, job: claim.job, client: core.upstream, gate: core.speechGate, loop: core.loop, continuing: continuation,
            idle: core.settings.idleTimeout, emit: { [unowned self] in told($0) }, ended: { [unowned self] in spoken($0) })
        self.speech = speech
        if let format = wish.format, format != "pcm" {
            speech.fail(Failure(.unsupportedParameter, "speech has the format pcm only, not \(format.prefix(40))"))
        } else if continuation != nil {
            speech.speakOn()
        }
    }

    private func told(_ audio: Audio) {
        output.append(.audio(audio))
        core.mark(self)
        // The text has the last part of the log for itself.
        if !audio.last, output.bytes > core.queueSettings.logMaximum / 8 * 7 {
            speech?.fail(Failure(.outputTooLarge, "the voice has filled the job's log (SLUICE_LOG_MAX)"))
        } else {
            holdBack()
        }
    }

    private func spoken(_ failure: Failure?) {
        if let failure {
            core.metrics.speechFailed.increment()
            core.logger.warning(
                "speech failed; the text goes on",
                metadata: claim.job.facts(["code": "\(failure.code.rawValue)", "reason": "\(failure.message)"]))
        }
        if let action = machine.spoken() { perform(action) }
    }
}
