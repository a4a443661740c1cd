"""What a history of gradient norms means: finding, evidence, advice; plain numpy, for norms from any framework."""

from cliffs.diagnosis._diagnose import Diagnosis as Diagnosis
from cliffs.diagnosis._diagnose import Finding as Finding
from cliffs.diagnosis._diagnose import Threshold as Threshold
from cliffs.diagnosis._diagnose import diagnose as diagnose
from cliffs.diagnosis._diagnose import suggest_threshold as suggest_threshold
