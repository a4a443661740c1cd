"""What a history of gradient norms means: finding, evidence, advice; plain numpy, for norms from any framework."""

from cliffs.diagnosis._diagnose import diagnose as diagnose
from cliffs.diagnosis._history import History as History
from cliffs.diagnosis._history import Log as Log
from cliffs.diagnosis._history import as_history as as_history
from cliffs.diagnosis._read import read_history as read_history
from cliffs.diagnosis._records import Diagnosis as Diagnosis
from cliffs.diagnosis._records import Finding as Finding
from cliffs.diagnosis._records import Threshold as Threshold
from cliffs.diagnosis._runs import RunsDiagnosis as RunsDiagnosis
from cliffs.diagnosis._runs import diagnose_runs as diagnose_runs
from cliffs.diagnosis._spikes import Association as Association
from cliffs.diagnosis._spikes import gradient_spikes as gradient_spikes
from cliffs.diagnosis._spikes import spike_association as spike_association
from cliffs.diagnosis._threshold import suggest_threshold as suggest_threshold
