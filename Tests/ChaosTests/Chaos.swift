import Testing

/// The guarantees of the contract during faults. The tests run one after the other, because each starts its own deployment.
@Suite(.serialized, .timeLimit(.minutes(ChaosSettings.minutes)))
enum Chaos {}
