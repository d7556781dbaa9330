import Testing

/// What the contract promises while things die. One after the other: each brings a deployment of its own.
@Suite(.serialized, .timeLimit(.minutes(ChaosSettings.minutes)))
enum Chaos {}
