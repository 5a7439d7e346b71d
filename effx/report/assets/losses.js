// Which engines are certified to lose at most a point against the baseline, effx/analysis/losses.py.

const LOSSES = {
  certified: ['✓', 'loses at most 1 point compared with the baseline; the confidence of 95 % is for all certified engines together'],
  'not proven': ['?', 'these rows do not rule out a loss of more than 1 point, even if the measured loss is smaller'],
  'loses more': ['✗', 'loses more than 1 point; the confidence of 95 % is for each engine alone'],
  unavailable: ['⊘', 'the loss cannot be computed, because a gate failed or predictions are missing'],
  'not tested': ['·', 'not tested: with so many engines, the tests would take too long'],
  baseline: ['=', 'the engine that the others are compared with'],
};

const lossClass = (status) => `loss ${status.replace(' ', '-')}`;

function lossChip(row) {
  if (!row.loss || !row.latest) return '–';
  const [status, explanation] = row.loss;
  return el('span', { class: lossClass(status), title: explanation }, `${LOSSES[status][0]} ${status}`);
}

// The numbers of engines of a group by status, each with a sentence.
function lossSummary(group) {
  const counts = new Map(Object.keys(LOSSES).map((status) => [status, 0]));
  for (const [status] of group.losses) counts.set(status, counts.get(status) + 1);
  return el('ul', { class: 'losses' }, [...counts].filter(([status, number]) => number && status !== 'baseline').map(([status, number]) => el('li', {},
    el('span', { class: lossClass(status) }, `${LOSSES[status][0]} ${status}: ${number}`), soft(`${LOSSES[status][1]}.`))));
}
