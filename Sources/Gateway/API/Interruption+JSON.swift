import Contract
import JSONCodec

extension Interruption {
    /// The member `sluice` of an interrupted answer in the standard APIs, which have no field for it.
    var answerJSON: JSON { ["interrupted": true, "reason": .string(reason), "phase": .string(phase.rawValue)] }
}
